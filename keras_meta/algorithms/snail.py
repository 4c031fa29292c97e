import math

import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.algorithms.sequence_model import SequenceModel
from keras_meta.algorithms.sequence_model import padding_first


@keras.saving.register_keras_serializable(package="keras_meta")
class SNAIL(SequenceModel):
    """The simple neural attentive learner: convolutions in time, attention.

    The support set is a sequence of examples with their labels, and a query
    without one comes last. Dilated causal convolutions gather what is nearby
    in the sequence, and causal attention picks out what is not; the two take
    turns. **The order of the support set matters.**

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()`.
        outputs: Integer, the ways of every episode, or with `regression` the
            size of a target.
        max_supports: Integer, the size of the largest support set, for which
            there are convolutions enough to look back to its start.
        regression: Boolean. Whether labels are targets, floats
            `[examples, outputs]`, and not classes. Defaults to `False`.
        filters: Integer, what each convolution adds to the features. Defaults
            to `32`; the paper has 128 for Omniglot.
        attention_size: Integer, the size of the keys and of the values of
            attention, one for both. Defaults to `32`.
        stages: Integer, how often convolutions and attention follow each
            other. Defaults to `2`, as in the paper.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described, or a
            support set has more than `max_supports` examples.

    Example:

    ```python
    model = keras_meta.SNAIL(
        keras_meta.backbones.mlp((1,), (64,), outputs=None),
        outputs=1,
        max_supports=10,
        regression=True,
    )
    model.compile("adam", loss="mse")
    model.fit(keras_meta.episodes.sinusoids(shots=10), steps_per_epoch=100)
    ```

    Reference:
        - [Mishra et al., 2018](https://arxiv.org/abs/1707.03141)
    """

    def __init__(
        self,
        network,
        outputs,
        max_supports,
        regression=False,
        filters=32,
        attention_size=32,
        stages=2,
        **kwargs,
    ):
        super().__init__(network, outputs, regression, max_supports, **kwargs)
        for name, value in (
            ("max_supports", max_supports),
            ("filters", filters),
            ("attention_size", attention_size),
            ("stages", stages),
        ):
            arguments.check_positive_integer(name, value)
        self.filters = filters
        self.attention_size = attention_size
        self.stages = stages
        # So many convolutions of two places each reach back to the first.
        convolutions = math.ceil(math.log2(max_supports + 1))
        size = self.embedding_size + self.outputs
        self.convolutions, self.attentions = [], []
        dtype = self.variable_dtype
        for stage in range(stages):
            block = []
            for number in range(convolutions):
                name = f"convolution_{stage}_{number}"
                layer = _Convolution(filters, 2**number, dtype=dtype, name=name)
                block.append(self.add_layer(layer, (None, None, size)))
                size += filters
            self.convolutions.append(block)
            layer = _Attention(
                attention_size, dtype=dtype, name=f"attention_{stage}"
            )
            self.attentions.append(self.add_layer(layer, (None, None, size)))
            size += attention_size
        self.head = self.add_layer(
            keras.layers.Dense(self.outputs, dtype=dtype, name="head"),
            (None, None, size),
        )

    def score(self, support, labels, weight, queries, training):
        weight, support, labels = padding_first(weight, support, labels)
        present = weight > 0
        known = tf.concat([support, labels], axis=-1)
        no_label = tf.repeat(
            tf.zeros_like(queries[..., :1]), self.outputs, axis=-1
        )
        asked = tf.concat([queries, no_label], axis=-1)
        for convolutions, attention in zip(self.convolutions, self.attentions):
            for layer in [*convolutions, attention]:
                more_known, more_asked = layer(known, asked, present)
                known = tf.concat([known, more_known], axis=-1)
                asked = tf.concat([asked, more_asked], axis=-1)
        return self.head(asked)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "attention_size": self.attention_size,
            "stages": self.stages,
        }


# Each of these layers takes the features of the sequence, `[tasks, support,
# size]`, and those of the queries, `[tasks, query, size]`, each of which comes
# after the sequence. The sequence's are computed once for all queries: it never
# looks ahead.


class _Convolution(keras.layers.Layer):
    """A causal convolution of two places, `dilation` apart, with a gate."""

    def __init__(self, filters, dilation, **kwargs):
        super().__init__(**kwargs)
        self.dilation = dilation
        self.dense = keras.layers.Dense(2 * filters, dtype=self.dtype_policy)

    def build(self, shape):
        self.dense.build((*shape[:-1], 2 * shape[-1]))

    def call(self, known, asked, present):
        # What is padded is before the start, where there is nothing.
        known = tf.where(present[..., None], known, tf.zeros_like(known))
        supports, queries = tf.shape(known)[1], tf.shape(asked)[1]
        earlier = tf.pad(known, [[0, 0], [self.dilation, 0], [0, 0]])
        before = tf.repeat(earlier[:, supports : supports + 1], queries, axis=1)
        features = tf.concat(
            [
                tf.concat([earlier[:, :supports], before], axis=1),
                tf.concat([known, asked], axis=1),
            ],
            axis=-1,
        )
        values, gates = tf.split(self.dense(features), 2, axis=-1)
        result = tf.tanh(values) * tf.sigmoid(gates)
        return result[:, :supports], result[:, supports:]


class _Attention(keras.layers.Layer):
    """Causal attention: each place reads itself and those before it."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.keys, self.questions, self.values = (
            keras.layers.Dense(size, dtype=self.dtype_policy) for _ in range(3)
        )

    def build(self, shape):
        for layer in (self.keys, self.questions, self.values):
            layer.build(shape)

    def call(self, known, asked, present):
        keys, values = self.keys(known), self.values(known)
        scale = 1.0 / math.sqrt(self.size)
        supports = tf.shape(known)[1]
        places = tf.range(supports)
        earlier = places[None, :] <= places[:, None]
        # What is padded reads at least itself, or there would be nothing.
        itself = places[None, :] == places[:, None]
        may_read = earlier & (present[:, None] | itself)
        scores = scale * tf.matmul(
            self.questions(known), keys, transpose_b=True
        )
        attention = tf.nn.softmax(tf.where(may_read, scores, scores.dtype.min))
        read_known = tf.matmul(attention, values)

        questions = self.questions(asked)
        scores = scale * tf.matmul(questions, keys, transpose_b=True)
        scores = tf.where(present[:, None], scores, scores.dtype.min)
        of_itself = scale * tf.reduce_sum(
            questions * self.keys(asked), axis=-1, keepdims=True
        )
        attention = tf.nn.softmax(tf.concat([scores, of_itself], axis=-1))
        read_asked = tf.matmul(attention[..., :-1], values)
        read_asked += attention[..., -1:] * self.values(asked)
        return read_known, read_asked
