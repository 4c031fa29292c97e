import inspect

import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.algorithms.adapted_metric_model import AdaptedMetricModel
from keras_meta.algorithms.base import EpisodicModel

# The score of a way that a task does not have. Not infinite: the gradient of
# a softmax would be NaN.
ABSENT = -1e9


class MetricModel(EpisodicModel):
    """An episodic model that embeds examples and compares the embeddings.

    A subclass writes `score()`, and `get_config()`. Training is that of every
    Keras model, the gradient of the query loss. The network is called as in
    every Keras model, too, the examples of all tasks in one batch: in
    training, batch normalization uses the statistics of that batch, and its
    moving statistics move; in prediction it uses the moving statistics, so
    that each query is answered on its own.

    Args:
        network: A built `keras.Model` from examples to embeddings.
        ways: Integer, the ways of every episode. `None` (the default) takes
            them from the labels of each meta-batch, so that they may differ
            between training and evaluation. XLA needs to know them.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    def __init__(self, network, ways=None, **kwargs):
        super().__init__(network, **kwargs)
        if ways is not None:
            arguments.check_positive_integer("ways", ways)
        self.ways = ways
        # XLA needs every shape beforehand, that of the logits included.
        self.supports_jit = ways is not None

    def score(self, support, labels, weight, queries, training):
        """Answers the queries; the hook of every metric learner.

        Args:
            support: Tensor `[tasks, support, ...]`, embeddings.
            labels: Tensor `[tasks, support, ways]`, one-hot, or float
                targets `[tasks, support, ...]` for regression.
            weight: Tensor `[tasks, support]`, 0 where padded.
            queries: Tensor `[tasks, query, ...]`, embeddings.
            training: Boolean.

        Returns:
            Tensor `[tasks, query, ways]`, logits, or predicted targets.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`score(support, labels, weight, queries, training)`."
        )

    def call(self, x, training=False):
        self._check_episode(x)
        support, queries = self._embed(x, training)
        labels = x[episode.SUPPORT_Y]
        weight = x.get(episode.SUPPORT_WEIGHT)
        if weight is None:
            weight = tf.ones(tf.shape(support)[:2], support.dtype)
        weight = tf.cast(weight, support.dtype)
        if self.takes_integer_labels:
            ways = self.ways or tf.cast(tf.reduce_max(labels), "int32") + 1
            labels = tf.one_hot(labels, ways, dtype=support.dtype)
        return self.answer(support, labels, weight, queries, training)

    def answer(self, support, labels, weight, queries, training):
        """Answers the queries by `score()`, which see for the arguments.

        Args:
            support: Tensor `[tasks, support, ...]`, embeddings.
            labels: Tensor `[tasks, support, ...]`, one-hot or targets.
            weight: Tensor `[tasks, support]`, 0 where padded.
            queries: Tensor `[tasks, query, ...]`, embeddings.
            training: Boolean.

        Returns:
            Tensor `[tasks, query, ways]`, logits, or predicted targets. The
            logit of a way that a task does not have is -1e9.
        """
        scores = self.score(support, labels, weight, queries, training)
        # Half precision has no number as low as that of an absent way.
        scores = tf.cast(scores, self.variable_dtype)
        if not self.takes_integer_labels:
            return scores
        present = tf.reduce_any(labels * weight[..., None] > 0, axis=1)
        return tf.where(present[:, None], scores, tf.cast(ABSENT, scores.dtype))

    def adapt(self, support_x, support_y, support_weight=None):
        """Returns the model of one task, an ordinary Keras model.

        It holds copies of this model's weights and the embeddings of the
        support set; training this model further does not change it. It is
        saved and exported as every Keras model. To load its `.keras` file,
        this package must be imported.

        Args:
            support_x: Array `[support, ...]`, the examples to adapt on.
            support_y: Array `[support, ...]`, their classes or targets.
            support_weight: Optional array `[support]`, 0 where padded.

        Returns:
            A `keras.Model` from query inputs `[query, ...]` to logits
            `[query, ways]`, or to predicted targets.

        Raises:
            ValueError: Where the support set is empty or lacks a class.
        """
        parts = self._embed_support(support_x, support_y, support_weight)
        support, labels, weight = (part[0] for part in parts)
        adapted = AdaptedMetricModel(self._copy(), support.shape, labels.shape)
        adapted.support.assign(support)
        adapted.labels.assign(labels)
        adapted.support_weight.assign(weight)
        # Keras learns the shape of the inputs from a call; `export()` asks.
        adapted(support_x)
        return adapted

    @property
    def takes_integer_labels(self):
        """Whether labels are class numbers, and not targets to regress."""
        return True

    def compute_output_spec(self, x, training=None):
        episode.check_keys(x)
        tasks, query = tf.nest.flatten(x[episode.QUERY_X])[0].shape[:2]
        return keras.KerasTensor((tasks, query, self.ways), self.variable_dtype)

    def _embed(self, x, training):
        """Returns the embeddings of the support set and of the queries."""
        support_x, query_x = x[episode.SUPPORT_X], x[episode.QUERY_X]
        leaf = tf.nest.flatten(support_x)[0]
        tasks, supports = tf.shape(leaf)[0], tf.shape(leaf)[1]

        def join(support, query):
            both = tf.concat([support, tf.cast(query, support.dtype)], axis=1)
            return tf.reshape(both, [-1, *both.shape[2:]])

        # One pass for both: so batch normalization sees both, and it is fast.
        examples = tf.nest.map_structure(join, support_x, query_x)
        embeddings = self.network(examples, training=training)
        embeddings = tf.reshape(embeddings, [tasks, -1, *embeddings.shape[1:]])
        return embeddings[:, :supports], embeddings[:, supports:]

    def _check_batch(self, x, y=None, sample_weight=None):
        super()._check_batch(x, y, sample_weight)
        if self.takes_integer_labels and y is not None:
            _check_support(x, y, sample_weight)

    def _embed_support(self, support_x, support_y, support_weight):
        """Checks one task's support set, and prepares it for `score()`.

        Returns:
            A tuple of embeddings, one-hot labels (or targets) and weights,
            each with an axis of one task.
        """
        task = self._one_task(support_x, support_y, support_weight)
        x = tf.nest.map_structure(lambda leaf: leaf[None], task)
        labels = x[episode.SUPPORT_Y]
        embeddings, _ = self._embed(x, training=False)
        weight = x.get(episode.SUPPORT_WEIGHT, tf.ones(embeddings.shape[:2]))
        weight = tf.cast(weight, embeddings.dtype)
        if self.takes_integer_labels:
            ways = self.ways or int(tf.reduce_max(labels)) + 1
            _check_support(x, np.arange(ways)[None])
            labels = tf.one_hot(labels, ways, dtype=weight.dtype)
        return embeddings, labels, weight

    def _copy(self):
        """Returns a model of the same settings and weights."""
        config = self.get_config()
        # A function is its own copy; Keras may not find it by its name.
        functions = {
            name: value
            for name, value in vars(self).items()
            if name in config and inspect.isfunction(value)
        }
        copy = type(self).from_config({**config, **functions})
        copy.set_weights(self.get_weights())
        return copy

    def _network_with_head(self, layers):
        """Returns a copy of the network with layers after it, built."""
        network = keras.models.clone_model(self.network)
        network.set_weights(self.network.get_weights())
        model = keras.Sequential([network, *layers])
        return model

    def get_config(self):
        return {**super().get_config(), "ways": self.ways}


def _check_support(x, y, sample_weight=None):
    """Checks that every class that is asked for has a support example."""
    support = np.asarray(x[episode.SUPPORT_Y])
    weight = np.asarray(x.get(episode.SUPPORT_WEIGHT, np.ones(support.shape)))
    asked = np.ones(np.shape(y)) if sample_weight is None else sample_weight
    for task, labels in enumerate(np.asarray(y)):
        wanted = np.unique(labels[np.asarray(asked)[task] > 0])
        missing = np.setdiff1d(wanted, support[task][weight[task] > 0])
        if missing.size:
            raise ValueError(
                "The support set must have an example of every class that "
                f"its queries ask for. Received: task {task}, whose support "
                f"set lacks the classes {missing.tolist()}."
            )
