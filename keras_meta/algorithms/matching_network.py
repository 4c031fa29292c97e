import math

import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import distances
from keras_meta.algorithms.metric_model import MetricModel


@keras.saving.register_keras_serializable(package="keras_meta")
class MatchingNetwork(MetricModel):
    """Matching networks: attention over the support set.

    A query attends to each support example by how near it is,
    `a_i = softmax_i(-sharpness * distance(query, support_i))`. The
    probability of a class is the attention that its examples get. In
    regression the answer is the mean of the support targets, weighed by the
    attention: a nearest-neighbor average in a learned space.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()`.
        distance: `"cosine"` (the default, the paper's choice),
            `"euclidean"`, `"squared_euclidean"`, or a function or layer
            `(queries, references)`, such as
            `keras_meta.distances.LearnedDistance`.
        sharpness: Float above 0, the factor of the distances. `None` (the
            default) learns it, from 10 on for cosines, which are never far
            apart, and from 1 on for other distances. The paper's is 1.
        context_steps: Integer. Above 0, the full context embeddings of the
            paper: the support set is embedded as a sequence, by an LSTM in
            both directions, and each query by so many steps of an LSTM that
            reads the support set by attention. The order of the support
            examples then matters. Defaults to `0`, without.
        regression: Boolean. Whether labels are targets, floats of any shape,
            and not classes. Defaults to `False`.
        ways: Integer, the ways of every episode. `None` (the default) takes
            them from the labels. XLA is used only where they are given.
        unknown: Boolean. Whether there is one more answer, "none of these",
            the last logit; see `calibrate_unknown()`. Defaults to `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    episodes = keras_meta.episodes.from_arrays(
        images, labels, ways=5, shots=1, queries=5, meta_batch_size=4
    )
    model = keras_meta.MatchingNetwork(keras_meta.backbones.conv4(filters=16))
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(episodes, steps_per_epoch=2)
    ```

    Reference:
        - [Vinyals et al., 2016](https://arxiv.org/abs/1606.04080)
    """

    targets_like_outputs = False

    def __init__(
        self,
        network,
        distance="cosine",
        sharpness=None,
        context_steps=0,
        regression=False,
        ways=None,
        unknown=False,
        **kwargs,
    ):
        arguments.check_choice("regression", regression, (True, False))
        if regression and (ways is not None or unknown):
            raise ValueError(
                "A regression has no classes, so that `ways` and `unknown` "
                f"must not be given. Received: ways={ways} and unknown="
                f"{unknown} with regression=True."
            )
        if sharpness is not None:
            arguments.check_positive_number("sharpness", sharpness)
        if context_steps != 0:
            arguments.check_positive_integer(
                "context_steps", context_steps, "Or leave it at 0."
            )
        super().__init__(network, ways, unknown, **kwargs)
        size = self._embedding_size()
        self.distance = distances.get(distance)
        self.sharpness = sharpness
        self.context_steps = context_steps
        self.regression = regression
        self.supports_jit = regression or ways is not None
        if sharpness is None:
            start = 10.0 if self.distance is distances.cosine else 1.0
            # Its exponential is never negative.
            self.log_sharpness = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(math.log(start)),
                autocast=False,
                name="log_sharpness",
            )
        if context_steps:
            self._add_context_layers(size)

    def score(self, support, labels, weight, queries, training):
        if self.context_steps:
            support, queries = self._in_context(
                support, weight, queries, training
            )
        sharpness = self.sharpness or tf.exp(self.log_sharpness)
        pair_distances = tf.cast(self.distance(queries, support), weight.dtype)
        scores = _weigh(-sharpness * pair_distances, weight)
        if self.regression:
            return _weighted_mean(tf.nn.softmax(scores), labels)
        of_class = labels[:, None] > 0
        return tf.reduce_logsumexp(
            tf.where(of_class, scores[..., None], scores.dtype.min), axis=2
        )

    def _add_context_layers(self, size):
        if size is None:
            raise ValueError(
                "For context embeddings, the network must know the size of "
                "its embeddings. Received: a network that does not. Give it "
                "a `keras.Input`."
            )
        # Half precision would be too coarse for sums of embeddings.
        dtype = self.variable_dtype
        # The kernels of cuDNN take no mask with gaps.
        lstm = keras.layers.LSTM(
            size, return_sequences=True, use_cudnn=False, dtype=dtype
        )
        self.support_context = keras.layers.Bidirectional(
            lstm, merge_mode="sum", dtype=dtype, name="support_context"
        )
        self.support_context.build((None, None, size))
        self.query_context = keras.layers.LSTMCell(
            size, dtype=dtype, name="query_context"
        )
        self.query_context.build((None, 2 * size))

    def _in_context(self, support, weight, queries, training):
        """Returns the embeddings of both in the context of the support set."""
        support += self.support_context(
            support, mask=weight > 0, training=training
        )
        size = queries.shape[-1]
        hidden, memory = tf.zeros_like(queries), tf.zeros_like(queries)
        memory = tf.reshape(memory, [-1, size])
        for _ in range(self.context_steps):
            scores = tf.matmul(hidden, support, transpose_b=True)
            attention = tf.nn.softmax(_weigh(scores, weight))
            read = tf.matmul(attention, support)
            # The cell of Keras takes what is read as an input. The paper
            # takes it as a state; the weights are the same.
            inputs = tf.concat([queries, read], axis=-1)
            output, (_, memory) = self.query_context(
                tf.reshape(inputs, [-1, 2 * size]),
                [tf.reshape(hidden, [-1, size]), memory],
                training=training,
            )
            hidden = tf.reshape(output, tf.shape(queries)) + queries
        return support, hidden

    def get_config(self):
        return {
            **super().get_config(),
            "distance": distances.serialize(self.distance),
            "sharpness": self.sharpness,
            "context_steps": self.context_steps,
            "regression": self.regression,
        }


def _weigh(scores, weight):
    """Makes a softmax of scores count each support example so many times.

    Args:
        scores: Tensor `[tasks, query, support]`.
        weight: Tensor `[tasks, support]`, 0 where padded.

    Returns:
        Tensor as `scores`.
    """
    present = weight > 0
    counts = tf.math.log(tf.where(present, weight, 1.0))
    return tf.where(
        present[:, None], scores + counts[:, None], scores.dtype.min
    )


def _weighted_mean(attention, targets):
    """Returns the mean of targets of any shape, `[tasks, query, ...]`."""
    attention = tf.cast(attention, targets.dtype)
    shape = tf.shape(targets)
    flat = tf.reshape(targets, [shape[0], shape[1], -1])
    means = tf.reshape(
        tf.matmul(attention, flat),
        tf.concat([tf.shape(attention)[:2], shape[2:]], axis=0),
    )
    if targets.shape.rank is not None:
        means.set_shape([*attention.shape[:2], *targets.shape[2:]])
    return means
