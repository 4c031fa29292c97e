import keras

from keras_meta import arguments
from keras_meta.algorithms.neural_process import NeuralProcess


@keras.saving.register_keras_serializable(package="keras_meta")
class AttentiveNeuralProcess(NeuralProcess):
    """Attentive neural processes: a query looks at the pairs that matter.

    As a conditional neural process, but the pairs attend to each other before
    they are summed up, and each query reads them by attention to the support
    examples that it resembles, and not as one mean. The order of the support
    set does not matter. A support example either counts or, with a weight of
    0, does not.

    In a regression the answer is a normal distribution for each part of a
    target, `[tasks, query, 2 * outputs]`: the means, and then the standard
    deviations. Train it with `keras_meta.losses.GaussianLikelihood`, and
    measure it with `keras_meta.metrics`.

    This is the deterministic path of the paper. Its other path, a random
    variable for the whole task, makes the answers of a task agree with each
    other where several are drawn; here each query is answered on its own.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.mlp(outputs=None)`.
        outputs: Integer, the ways of every episode, or with `regression` the
            size of a target.
        regression: Boolean. Whether labels are targets, floats
            `[examples, outputs]`, and not classes. Defaults to `False`.
        hidden_units: Sequence of integers, the sizes of the hidden layers of
            the encoder of pairs, and of the decoder. Defaults to
            `(128, 128)`.
        code_size: Integer, the size of a code. Defaults to `128`.
        heads: Integer, the heads of the attention; a divisor of `code_size`.
            Defaults to `8`.
        minimum_deviation: Float above 0, the least standard deviation, in
            units of the targets; only for `regression`. Defaults to `0.01`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    model = keras_meta.AttentiveNeuralProcess(
        keras_meta.backbones.mlp((1,), (64,), outputs=None),
        outputs=1,
        regression=True,
    )
    model.compile("adam", loss=keras_meta.losses.GaussianLikelihood())
    model.fit(keras_meta.episodes.sinusoids(), steps_per_epoch=100)
    ```

    Reference:
        - [Kim et al., 2019](https://arxiv.org/abs/1901.05761)
    """

    def __init__(
        self,
        network,
        outputs,
        regression=False,
        hidden_units=(128, 128),
        code_size=128,
        heads=8,
        minimum_deviation=0.01,
        **kwargs,
    ):
        super().__init__(
            network,
            outputs,
            regression,
            hidden_units=hidden_units,
            code_size=code_size,
            minimum_deviation=minimum_deviation,
            **kwargs,
        )
        arguments.check_heads(heads, "code_size", code_size)
        self.heads = heads
        codes = (None, None, code_size)
        examples = (None, None, self.embedding_size)
        self.among_pairs = self.add_layer(
            self._attention("among_pairs"), codes, codes
        )
        self.to_pairs = self.add_layer(
            self._attention("to_pairs"), examples, codes, examples
        )

    def _attention(self, name):
        return keras.layers.MultiHeadAttention(
            self.heads,
            self.code_size // self.heads,
            output_shape=self.code_size,
            dtype=self.variable_dtype,
            name=name,
        )

    def represent(self, support, codes, weight, queries, training):
        present = (weight > 0)[:, None]
        codes += self.among_pairs(
            codes, codes, attention_mask=present, training=training
        )
        return self.to_pairs(
            queries,
            codes,
            support,
            attention_mask=present,
            training=training,
        )

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}
