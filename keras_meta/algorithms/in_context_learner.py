import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.algorithms.perceptron import Perceptron
from keras_meta.algorithms.sequence_model import SequenceModel


@keras.saving.register_keras_serializable(package="keras_meta")
class InContextLearner(SequenceModel):
    """A transformer that learns from the examples before it.

    A token is a support example with its label, or a query with a mark in
    place of one. Blocks of attention let the support tokens read each other
    and each query read the support tokens; the answer is read off the query's
    last token. No gradient is taken at adaptation.

    Without `max_supports` nothing tells where in the support set an example
    stands: its order does not matter, and it may be of any size. With it the
    order matters. A support example either counts or, with a weight of 0,
    does not.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()`.
        outputs: Integer, the ways of every episode, or with `regression` the
            size of a target.
        regression: Boolean. Whether labels are targets, floats
            `[examples, outputs]`, and not classes. Defaults to `False`.
        width: Integer, the size of a token. Defaults to `64`.
        blocks: Integer, the blocks of attention and dense layers. Defaults to
            `3`.
        heads: Integer, the heads of the attention; a divisor of `width`.
            Defaults to `4`.
        dropout: Float from 0 to less than 1, the rate of dropout behind
            attention and dense layers. Defaults to `0.0`.
        max_supports: Integer: tokens learn their places in a support set of
            this size or less. `None` (the default): a support set is a set.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described, or a
            support set has more than `max_supports` examples.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    episodes = keras_meta.episodes.from_arrays(
        images, labels, ways=5, shots=1, queries=5, meta_batch_size=4
    )
    model = keras_meta.InContextLearner(
        keras_meta.backbones.conv4(filters=16), outputs=5
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(episodes, steps_per_epoch=2)
    ```

    Reference:
        - [Kirsch et al., 2022](https://arxiv.org/abs/2212.04458)
        - [Müller et al., 2022](https://arxiv.org/abs/2112.10510)
    """

    def __init__(
        self,
        network,
        outputs,
        regression=False,
        width=64,
        blocks=3,
        heads=4,
        dropout=0.0,
        max_supports=None,
        **kwargs,
    ):
        super().__init__(network, outputs, regression, max_supports, **kwargs)
        for name, value in (("width", width), ("blocks", blocks)):
            arguments.check_positive_integer(name, value)
        arguments.check_heads(heads, "width", width)
        arguments.check_share("dropout", dropout, below_one=True)
        self.width = width
        self.blocks = blocks
        self.heads = heads
        self.dropout = dropout
        dtype = self.variable_dtype
        # One input more tells queries from support examples.
        self.tokens = self.add_layer(
            keras.layers.Dense(width, dtype=dtype, name="tokens"),
            (None, None, self.embedding_size + self.outputs + 1),
        )
        self.places = None
        if max_supports is not None:
            self.places = self.add_weight(
                shape=(max_supports, width),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                autocast=False,
                name="places",
            )
        self.transformer = [
            self.add_layer(
                _Block(
                    width, heads, dropout, dtype=dtype, name=f"block_{number}"
                ),
                (None, None, width),
            )
            for number in range(blocks)
        ]
        self.normalization = self.add_layer(
            keras.layers.LayerNormalization(dtype=dtype, name="normalization"),
            (None, None, width),
        )
        self.head = self.add_layer(
            keras.layers.Dense(self.outputs, dtype=dtype, name="head"),
            (None, None, width),
        )

    def score(self, support, labels, weight, queries, training):
        pairs = tf.concat(
            [support, labels, tf.zeros_like(weight)[..., None]], axis=-1
        )
        no_label = tf.zeros_like(queries[..., :1])
        asked = tf.concat(
            [
                queries,
                tf.repeat(no_label, self.outputs, axis=-1),
                tf.ones_like(no_label),
            ],
            axis=-1,
        )
        known, asked = self.tokens(pairs), self.tokens(asked)
        if self.places is not None:
            # A padded example takes no place.
            present = tf.cast(weight > 0, "int32")
            number = tf.maximum(tf.cumsum(present, axis=1) - 1, 0)
            known += tf.gather(tf.convert_to_tensor(self.places), number)
        for block in self.transformer:
            known, asked = block(known, asked, weight, training=training)
        return self.head(self.normalization(asked))

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "blocks": self.blocks,
            "heads": self.heads,
            "dropout": self.dropout,
        }


class _Block(keras.layers.Layer):
    """A block of a transformer for support tokens and queries.

    All read the support tokens, and nobody reads a query, so that each is
    answered on its own.
    """

    def __init__(self, width, heads, dropout, **kwargs):
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        self.before_attention = keras.layers.LayerNormalization(dtype=dtype)
        self.attention = keras.layers.MultiHeadAttention(
            heads, width // heads, dtype=dtype
        )
        self.before_dense = keras.layers.LayerNormalization(dtype=dtype)
        self.dense = Perceptron((4 * width,), width, "gelu", dtype=dtype)
        self.dropout = keras.layers.Dropout(dropout, dtype=dtype)

    def build(self, shape):
        self.before_attention.build(shape)
        self.attention.build(shape, shape)
        self.before_dense.build(shape)
        self.dense.build(shape)

    def call(self, known, asked, weight, training=False):
        tokens = tf.concat([known, asked], axis=1)
        read = self.attention(
            self.before_attention(tokens),
            self.before_attention(known),
            attention_mask=(weight > 0)[:, None],
            training=training,
        )
        tokens += self.dropout(read, training=training)
        thought = self.dense(self.before_dense(tokens))
        tokens += self.dropout(thought, training=training)
        supports = tf.shape(known)[1]
        return tokens[:, :supports], tokens[:, supports:]
