import inspect

import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta import export
from keras_meta import normalization
from keras_meta.algorithms import class_labels
from keras_meta.algorithms.adapted_embedding_model import AdaptedEmbeddingModel
from keras_meta.algorithms.base import EpisodicModel


class EmbeddingModel(EpisodicModel):
    """An episodic model that embeds examples and answers from embeddings.

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
            between training and evaluation. XLA is used only where they
            are given: else Keras warns of `jit_compile=True` and runs without.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    # Whether "none of these" is an answer; see `MetricModel`.
    unknown = False
    # Whether labels are targets; of an instance where there is a choice.
    regression = False

    def __init__(self, network, ways=None, **kwargs):
        super().__init__(network, **kwargs)
        if ways is not None:
            arguments.check_positive_integer("ways", ways)
        self.ways = ways
        # XLA needs every shape beforehand, that of the logits included.
        self.supports_jit = ways is not None

    def score(self, support, labels, weight, queries, training):
        """Answers the queries; the hook of these algorithms.

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

    def summarize(self, support, labels, weight):
        """Returns what is kept of support sets to answer queries from.

        Unless an algorithm needs less, it is what `score()` takes. One that
        needs less writes `score_from()`, too.

        Args:
            support: Tensor `[tasks, support, ...]`, embeddings.
            labels: Tensor `[tasks, support, ...]`, one-hot or targets.
            weight: Tensor `[tasks, support]`, 0 where padded.

        Returns:
            Structure of tensors `[tasks, ...]`.
        """
        return support, labels, weight

    def score_from(self, summary, queries):
        """Answers the queries as `score()` does, from a summary.

        Args:
            summary: What `summarize()` returned.
            queries: Tensor `[tasks, query, ...]`, embeddings.

        Returns:
            Tensor `[tasks, query, ways]`, logits, or predicted targets.
        """
        return self.score(*summary, queries, training=False)

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        if self.takes_integer_labels:
            class_labels.check_takes_logits(loss)
        super().compile(optimizer, loss, *args, **kwargs)

    def call(self, x, training=False):
        self._check_episode(x)
        return self.answer(*self._parts(x, training), training)

    def answer(self, support, labels, weight, queries, training, **given):
        """Answers the queries by `score()`, which see for the arguments.

        All tensors must be in the dtype of the model's variables.

        Args:
            support: Tensor `[tasks, support, ...]`, embeddings.
            labels: Tensor `[tasks, support, ...]`, one-hot or targets.
            weight: Tensor `[tasks, support]`, 0 where padded.
            queries: Tensor `[tasks, query, ...]`, embeddings.
            training: Boolean.
            **given: What else `score()` takes, if anything.

        Returns:
            Tensor `[tasks, query, ways]`, logits, or predicted targets. The
            logit of a way that a task does not have is -1e9.
        """
        support, labels = without_padding(weight, support, labels)
        scores = self.score(support, labels, weight, queries, training, **given)
        return self._complete(scores, self._present(labels, weight))

    def _present(self, labels, weight):
        """Returns which ways a task has, `[tasks, ways]`."""
        if not self.takes_integer_labels:
            return None
        return tf.reduce_any(labels * weight[..., None] > 0, axis=1)

    def _complete(self, scores, present):
        """Makes scores the answers: those of absent ways are -1e9."""
        scores = tf.cast(scores, self.variable_dtype)
        if present is None:
            return scores
        return tf.where(
            present[:, None],
            scores,
            tf.constant(class_labels.ABSENT, scores.dtype),
        )

    def task_state(self, x):
        x = {**x, episode.QUERY_X: x[episode.SUPPORT_X]}
        self._check_episode(x)
        x = episode.without_nan(x)
        support = self._embed_each(x[episode.SUPPORT_X], training=False)
        labels, weight = self._labels_and_weight(x, support)
        support = tf.cast(support, self.variable_dtype)
        support, labels = without_padding(weight, support, labels)
        state = {"summary": self.summarize(support, labels, weight)}
        if self.takes_integer_labels:
            state["present"] = self._present(labels, weight)
        return state

    def answer_from_state(self, state, query_x):
        queries = self._embed_each(query_x, training=False)
        queries = tf.cast(queries, self.variable_dtype)
        scores = self.score_from(state["summary"], queries)
        return self._complete(scores, state.get("present"))

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
        adapted = AdaptedEmbeddingModel(
            self._copy(), support.shape, labels.shape
        )
        adapted.support.assign(support)
        adapted.labels.assign(labels)
        adapted.support_weight.assign(weight)
        # Keras learns the shape of the inputs from a call; `export()` asks.
        adapted(support_x)
        return adapted

    @property
    def takes_integer_labels(self):
        """Whether labels are class numbers, and not targets to regress."""
        return not self.regression

    def compute_output_spec(self, x, training=None):
        episode.check_keys(x)
        tasks, query = tf.nest.flatten(x[episode.QUERY_X])[0].shape[:2]
        if not self.takes_integer_labels:
            shape = (tasks, query, *x[episode.SUPPORT_Y].shape[2:])
            return keras.KerasTensor(shape, self.variable_dtype)
        outputs = self.ways and self.ways + self.unknown
        return keras.KerasTensor((tasks, query, outputs), self.variable_dtype)

    def _parts(self, x, training):
        """Returns what `answer()` takes, but for `training`."""
        support, queries = self._embed(x, training)
        labels, weight = self._labels_and_weight(x, support)
        # Squares of embeddings overflow in half precision, and it has no number
        # as low as that of an absent way.
        support = tf.cast(support, self.variable_dtype)
        queries = tf.cast(queries, self.variable_dtype)
        return support, labels, weight, queries

    def _labels_and_weight(self, x, support):
        """Returns one-hot labels or targets, and weights of a support set."""
        labels = x[episode.SUPPORT_Y]
        weight = x.get(episode.SUPPORT_WEIGHT)
        if weight is None:
            weight = tf.ones(tf.shape(support)[:2])
        if self.takes_integer_labels:
            labels = tf.one_hot(tf.cast(labels, "int32"), self._ways(x))
        labels = tf.cast(labels, self.variable_dtype)
        return labels, tf.cast(weight, self.variable_dtype)

    def _ways(self, x):
        if self.ways:
            return self.ways
        return tf.cast(tf.reduce_max(x[episode.SUPPORT_Y]), "int32") + 1

    def _embedding_shape(self):
        """Returns the shape of one embedding, `None` where it is unknown."""
        output = export.output_spec(self.network)
        if output is None:
            return None
        if tf.nest.is_nested(output):
            raise ValueError(
                "The network must give one embedding for each example. "
                f"Received: a network with outputs {output}."
            )
        return tuple(output.shape[1:])

    def _embedding_size(self):
        """Checks that embeddings are vectors; returns their size or `None`."""
        shape = self._embedding_shape()
        if shape is None:
            return None
        if len(shape) != 1:
            raise ValueError(
                "The network must give one flat embedding, `[batch, size]`. "
                f"Received: a network with embeddings of shape {shape}. Add "
                "a `keras.layers.Flatten`."
            )
        return shape[0]

    def _embed(self, x, training):
        """Returns the embeddings of the support set and of the queries."""
        _check_shapes(x)
        x = episode.without_nan(x)
        support_x, query_x = x[episode.SUPPORT_X], x[episode.QUERY_X]
        _, supports = _counts(support_x)
        # One pass for both: so batch normalization sees both, and it is fast.
        both = tf.nest.map_structure(
            lambda support, query: concatenate(support, query, axis=1),
            support_x,
            query_x,
        )
        embeddings = self._embed_each(both, training)
        return embeddings[:, :supports], embeddings[:, supports:]

    def _embed_each(self, examples, training):
        """Returns embeddings `[tasks, examples, ...]`."""
        tasks, _ = _counts(examples)
        flat = tf.nest.map_structure(
            lambda leaf: tf.reshape(leaf, [-1, *leaf.shape[2:]]), examples
        )
        embeddings = normalization.call_network(self.network, flat, training)
        return tf.reshape(embeddings, [tasks, -1, *embeddings.shape[1:]])

    def _check_episode(self, x):
        episode.check_keys(x)
        self._check_labels(x)
        super()._check_episode(x)

    def _check_labels(self, x, y=None):
        if self.takes_integer_labels:
            class_labels.check_class_numbers(
                "`support_y`", x[episode.SUPPORT_Y]
            )
            class_labels.check_class_numbers("the query labels `y`", y)

    def _check_batch(self, x, y=None, sample_weight=None):
        episode.check_keys(x)
        # Before what holds for all algorithms, some of which take one-hot
        # labels.
        self._check_labels(x, y)
        super()._check_batch(x, y, sample_weight)
        _check_shapes(x)
        if not self.takes_integer_labels:
            _check_targets(x, y)
            return
        if np.min(x[episode.SUPPORT_Y]) < 0:
            raise ValueError(
                "Classes must be numbered from 0. Received: support labels "
                f"from {np.min(x[episode.SUPPORT_Y])}. Give padded examples "
                "any class and a `support_weight` of 0."
            )
        ways = int(self._ways(x))
        if np.max(x[episode.SUPPORT_Y]) >= ways:
            raise ValueError(
                'The support set must have no examples of "none of these", '
                f"class {ways}; only queries may be labeled so. Received: "
                f"support labels up to {np.max(x[episode.SUPPORT_Y])}."
            )
        if y is not None:
            # There are no examples of "none of these".
            of_a_class = np.asarray(y) != ways if self.unknown else True
            asked = True
            if sample_weight is not None:
                asked = np.asarray(sample_weight) > 0
            class_labels.check_support(x, y, of_a_class & np.asarray(asked))

    def _embed_support(self, support_x, support_y, support_weight):
        """Checks one task's support set, and prepares it for `score()`.

        Returns:
            A tuple of embeddings, one-hot labels (or targets) and weights,
            each with an axis of one task.
        """
        task = self._one_task(support_x, support_y, support_weight)
        x = tf.nest.map_structure(lambda leaf: leaf[None], task)
        if self.takes_integer_labels:
            class_labels.check_support(x, np.arange(self._ways(x))[None])
        support, labels, weight, _ = self._parts(x, training=False)
        return support, labels, weight

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

    def get_config(self):
        return {
            **super().get_config(),
            "ways": self.ways,
        }


def _counts(examples):
    """Returns the numbers of tasks and of examples of each."""
    leaf = tf.nest.flatten(examples)[0]
    # What is known beforehand must stay so, for XLA.
    return tuple(
        tf.shape(leaf)[axis] if leaf.shape[axis] is None else size
        for axis, size in enumerate(leaf.shape[:2])
    )


def concatenate(one, other, axis):
    """Returns both in a dtype that holds either, one after the other."""
    one, other = tf.convert_to_tensor(one), tf.convert_to_tensor(other)
    if one.dtype != other.dtype:
        dtype = keras.backend.result_type(one.dtype, other.dtype)
        one, other = tf.cast(one, dtype), tf.cast(other, dtype)
    return tf.concat([one, other], axis=axis)


def without_padding(weight, *parts):
    """Puts 0 in place of what is padded.

    It may be NaN, which is NaN, too, where it is multiplied by 0.

    Args:
        weight: Tensor `[tasks, support]`, 0 where padded.
        *parts: Tensors `[tasks, support, ...]`.

    Returns:
        A tuple of the parts.
    """
    return tuple(
        tf.where(episode.like(weight > 0, part), part, tf.zeros_like(part))
        for part in parts
    )


def _check_shapes(x):
    """Checks that support and query examples have the same shape."""
    support_x, query_x = x[episode.SUPPORT_X], x[episode.QUERY_X]
    arguments.check_same_parts("Support and query examples", support_x, query_x)
    leaves = tf.nest.flatten(support_x), tf.nest.flatten(query_x)
    for support, query in zip(*leaves):
        one, other = support.shape[2:], query.shape[2:]
        if not tf.TensorShape(one).is_compatible_with(other):
            raise ValueError(
                "Support and query examples must have the same shape. "
                f"Received: support examples of shape {tuple(one)} and query "
                f"examples of shape {tuple(other)}."
            )


def _check_targets(x, y):
    """Checks that the targets of queries are like those of the support."""
    targets = x[episode.SUPPORT_Y]
    if tf.nest.is_nested(targets):
        raise TypeError(
            "The targets of a regression must be one array. Received: "
            f"`support_y` of type {type(targets).__name__}."
        )
    one = np.shape(targets)[2:]
    other = one if y is None else np.shape(y)[2:]
    if one != other:
        raise ValueError(
            "The targets of support and queries must have the same shape. "
            f"Received: support targets of shape {one} and query targets of "
            f"shape {other}."
        )
