import keras
import tensorflow as tf

from keras_meta.algorithms.amortized_model import beside_each_query
from keras_meta.algorithms.amortized_model import weighted_mean
from keras_meta.algorithms.neural_process import NeuralProcess


@keras.saving.register_keras_serializable(package="keras_meta")
class ConditionalNeuralProcess(NeuralProcess):
    """Conditional neural processes: a support set is the mean of its codes.

    Each pair of the support set is encoded, the mean of the codes tells all
    that is known of the task, and a decoder answers each query from that. The
    order of the support set does not matter, nor does its size.

    In a regression the answer is a normal distribution for each part of a
    target, `[tasks, query, 2 * outputs]`: the means, and then the standard
    deviations. Train it with `keras_meta.losses.GaussianLikelihood`, and
    measure it with `keras_meta.metrics`.

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
        minimum_deviation: Float above 0, the least standard deviation, in
            units of the targets; only for `regression`. Defaults to `0.01`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    model = keras_meta.ConditionalNeuralProcess(
        keras_meta.backbones.mlp((1,), (64,), outputs=None),
        outputs=1,
        regression=True,
    )
    model.compile("adam", loss=keras_meta.losses.GaussianLikelihood())
    model.fit(keras_meta.episodes.sinusoids(), steps_per_epoch=100)
    ```

    Reference:
        - [Garnelo et al., 2018](https://arxiv.org/abs/1807.01613)
    """

    def __init__(
        self,
        network,
        outputs,
        regression=False,
        hidden_units=(128, 128),
        code_size=128,
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

    def represent(self, support, codes, weight, queries, training):
        return beside_each_query(weighted_mean(codes, weight), queries)

    def summarize(self, support, labels, weight):
        codes = self.encoder(tf.concat([support, labels], axis=-1))
        return weighted_mean(codes, weight)

    def score_from(self, summary, queries):
        return self.decode(queries, beside_each_query(summary, queries))
