import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import metrics as metric_functions
from keras_meta.algorithms.amortized_model import AmortizedModel
from keras_meta.algorithms.perceptron import Perceptron


class NeuralProcess(AmortizedModel):
    """An amortized model that answers with a distribution.

    A pair of the support set becomes a code, and a query is answered from
    what `represent()`, the hook, makes of the codes for it. In a regression
    the answer is `[..., 2 * outputs]`: the means, and then the standard
    deviations, of independent normal distributions.

    Args:
        network: A built `keras.Model` from examples to embeddings.
        outputs: Integer, the ways, or the size of a target.
        regression: Boolean.
        hidden_units: Sequence of integers, the hidden layers of the encoder
            of pairs and of the decoder.
        code_size: Integer, the size of a code.
        minimum_deviation: Float above 0, the least standard deviation.
        latent_size: Integer, what the decoder is told beside that.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    def __init__(
        self,
        network,
        outputs,
        regression=False,
        hidden_units=(128, 128),
        code_size=128,
        minimum_deviation=0.01,
        latent_size=0,
        **kwargs,
    ):
        super().__init__(network, outputs, regression, **kwargs)
        arguments.check_units("hidden_units", hidden_units)
        arguments.check_positive_integer("code_size", code_size)
        arguments.check_positive_number("minimum_deviation", minimum_deviation)
        self.hidden_units = tuple(hidden_units)
        self.code_size = code_size
        self.minimum_deviation = minimum_deviation
        self.encoder = self.add_layer(
            Perceptron(
                self.hidden_units,
                code_size,
                dtype=self.variable_dtype,
                name="encoder",
            ),
            (None, None, self.embedding_size + self.outputs),
        )
        self.decoder = self.add_layer(
            Perceptron(
                self.hidden_units,
                self.outputs * (2 if regression else 1),
                dtype=self.variable_dtype,
                name="decoder",
            ),
            (None, None, self.embedding_size + code_size + latent_size),
        )

    def represent(self, support, codes, weight, queries, training):
        """Returns what the queries shall know of the support set; the hook.

        Args:
            support: Tensor `[tasks, support, size]`, embeddings.
            codes: Tensor `[tasks, support, code_size]`, of the pairs.
            weight: Tensor `[tasks, support]`, 0 where padded.
            queries: Tensor `[tasks, query, size]`, embeddings.
            training: Boolean.

        Returns:
            Tensor `[tasks, query, code_size]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`represent(support, codes, weight, queries, training)`."
        )

    def score(self, support, labels, weight, queries, training):
        codes = self.encoder(tf.concat([support, labels], axis=-1))
        known = self.represent(support, codes, weight, queries, training)
        return self.decode(queries, known)

    def decode(self, queries, known):
        """Answers queries from what they know of the support set.

        Args:
            queries: Tensor `[tasks, query, size]`, embeddings.
            known: Tensor `[tasks, query, code_size]`, and what else is known.

        Returns:
            Tensor `[tasks, query, outputs]`, logits, or with `regression`
            `[tasks, query, 2 * outputs]`, means and standard deviations.
        """
        answers = self.decoder(tf.concat([queries, known], axis=-1))
        if not self.regression:
            return answers
        means, spreads = tf.split(answers, 2, axis=-1)
        deviations = self.minimum_deviation + tf.nn.softplus(spreads)
        return tf.concat([means, deviations], axis=-1)

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        **kwargs,
    ):
        if self.regression:
            _check_takes_gaussians("loss", loss)
            _check_takes_gaussians("metrics", metrics)
            _check_takes_gaussians("weighted_metrics", weighted_metrics)
        super().compile(
            optimizer,
            loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **kwargs,
        )

    @property
    def default_metric(self):
        """What `evaluate_episodes()` measures unless told otherwise."""
        if not self.regression:
            return None
        return metric_functions.gaussian_mean_squared_error

    def compute_output_spec(self, x, training=None):
        spec = super().compute_output_spec(x, training)
        if not self.regression:
            return spec
        shape = (*spec.shape[:-1], 2 * self.outputs)
        return keras.KerasTensor(shape, spec.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "code_size": self.code_size,
            "minimum_deviation": self.minimum_deviation,
        }


def _check_takes_gaussians(name, functions):
    """Refuses Keras's own losses and metrics: the deviations are no answer.

    They would compare them with the targets, without an error where these are
    of size 1.
    """
    for function in tf.nest.flatten(functions):
        inner = getattr(function, "_fn", getattr(function, "fn", function))
        # An instance has the module of its class.
        module = getattr(inner, "__module__", None) or ""
        if isinstance(inner, str) or module.startswith("keras."):
            raise ValueError(
                f"`{name}` must take the means and the standard deviations "
                "that the model answers, `[..., 2 * outputs]`. Received: "
                f"{name}={function!r}, which takes them all for answers. Use "
                "`keras_meta.losses.GaussianLikelihood()` as the loss, and "
                "functions of `keras_meta.metrics` as metrics."
            )
