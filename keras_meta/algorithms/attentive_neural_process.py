import math

import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import replicas
from keras_meta.algorithms import random_draws
from keras_meta.algorithms.amortized_model import beside_each_query
from keras_meta.algorithms.amortized_model import weighted_mean
from keras_meta.algorithms.embedding_model import without_padding
from keras_meta.algorithms.neural_process import NeuralProcess
from keras_meta.algorithms.perceptron import Perceptron


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

    With `latent_size` there is the other path of the paper, too: a random
    variable for the whole task, which tells what the support set leaves open.
    `fit()` then draws it as it is once the queries are known, and adds to the
    loss how far that is from what the support set alone tells (minus the
    evidence lower bound). A prediction is the mixture over `samples` draws,
    always the same ones; of a regression, its mean and standard deviation.

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
        latent_size: Integer, the size of the random variable of a task.
            Defaults to `0`, without.
        samples: Integer, how many draws of it a prediction mixes; only with
            `latent_size`. Defaults to `8`.
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
        latent_size=0,
        samples=8,
        **kwargs,
    ):
        arguments.check_integer_from_zero("latent_size", latent_size)
        arguments.check_positive_integer("samples", samples)
        super().__init__(
            network,
            outputs,
            regression,
            hidden_units=hidden_units,
            code_size=code_size,
            minimum_deviation=minimum_deviation,
            latent_size=latent_size,
            **kwargs,
        )
        self.latent_size = latent_size
        self.samples = samples
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

        if latent_size:
            self._add_latent_path()

    def _add_latent_path(self):
        dtype = self.variable_dtype
        self.latent_encoder = self.add_layer(
            Perceptron(
                self.hidden_units,
                self.code_size,
                dtype=dtype,
                name="latent_encoder",
            ),
            (None, None, self.embedding_size + self.outputs),
        )
        self.latent_head = self.add_layer(
            keras.layers.Dense(
                2 * self.latent_size, dtype=dtype, name="latent_head"
            ),
            (None, self.code_size),
        )
        self.noise = self.add_weight(
            shape=(self.samples, self.latent_size),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            trainable=False,
            autocast=False,
            name="noise",
        )
        self.draws = random_draws.add_seed(self, "draws")

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

    def latent(self, support, labels, weight):
        """Returns what examples tell of a task's random variable.

        Args:
            support: Tensor `[tasks, examples, size]`, embeddings.
            labels: Tensor `[tasks, examples, outputs]`, one-hot or targets.
            weight: Tensor `[tasks, examples]`, 0 where padded.

        Returns:
            A tuple of tensors `[tasks, latent_size]`: the means and the
            standard deviations of independent normal distributions.
        """
        codes = self.latent_encoder(tf.concat([support, labels], axis=-1))
        codes = tf.nn.relu(weighted_mean(codes, weight))
        means, spreads = tf.split(self.latent_head(codes), 2, axis=-1)
        # As in the paper's code: neither 0 nor far from 1.
        return means, 0.1 + 0.9 * tf.sigmoid(spreads)

    def score(self, support, labels, weight, queries, training, drawn=None):
        if not self.latent_size:
            return super().score(support, labels, weight, queries, training)
        codes = self.encoder(tf.concat([support, labels], axis=-1))
        known = self.represent(support, codes, weight, queries, training)
        if drawn is not None:
            return self._decode_with(queries, known, drawn)
        means, deviations = self.latent(support, labels, weight)
        answers = [
            self._decode_with(queries, known, means + deviations * noise)
            for noise in tf.unstack(tf.convert_to_tensor(self.noise))
        ]
        return self._mixture(tf.stack(answers))

    def _decode_with(self, queries, known, drawn):
        drawn = beside_each_query(drawn, queries)
        return self.decode(queries, tf.concat([known, drawn], axis=-1))

    def _mixture(self, answers):
        """Returns the mixture of answers `[samples, tasks, query, ...]`."""
        if not self.regression:
            logarithms = tf.nn.log_softmax(answers)
            return tf.reduce_logsumexp(logarithms, axis=0) - math.log(
                self.samples
            )
        means, deviations = tf.split(answers, 2, axis=-1)
        mean = tf.reduce_mean(means, axis=0)
        variance = tf.reduce_mean(
            tf.square(deviations) + tf.square(means - mean), axis=0
        )
        return tf.concat([mean, tf.sqrt(variance)], axis=-1)

    def train_step(self, data):
        if not self.latent_size:
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_episode(x)

        def answer():
            support, labels, weight, queries = self._parts(x, training=True)
            support, labels = without_padding(weight, support, labels)
            targets = y
            if not self.regression:
                targets = tf.one_hot(tf.cast(y, "int32"), self.outputs)
            targets = tf.cast(targets, labels.dtype)
            asked = tf.ones_like(queries[..., 0])
            if sample_weight is not None:
                asked = tf.cast(sample_weight, asked.dtype)
            queries, targets = without_padding(asked, queries, targets)
            before = self.latent(support, labels, weight)
            after = self.latent(
                tf.concat([support, queries], axis=1),
                tf.concat([labels, targets], axis=1),
                tf.concat([weight, asked], axis=1),
            )
            means, deviations = after
            drawn = means + deviations * self._draw(tf.shape(means)[0])
            predictions = self.answer(
                support, labels, weight, queries, True, drawn=drawn
            )
            loss = self.compute_loss(x, y, predictions, sample_weight)
            divergence = tf.reduce_mean(_divergence(after, before))
            # The loss is a mean over queries, so that this is one, too.
            divergence /= tf.cast(tf.shape(queries)[1], divergence.dtype)
            return predictions, loss + divergence / replicas.count()

        return self._train_with(data, answer)

    def _draw(self, tasks):
        """Draws normal numbers for each task, other ones each time."""
        seed = tf.convert_to_tensor(self.draws)
        self.draws.assign(seed + [0, 1])
        integers = replicas.own_share(
            lambda count: random_draws.integers(
                [count, self.latent_size], seed
            ),
            tasks,
        )
        uniform = (tf.cast(integers, "float64") + 0.5) / 2.0**32 + 0.5
        return tf.cast(tf.math.ndtri(uniform), self.variable_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "latent_size": self.latent_size,
            "samples": self.samples,
        }


def _divergence(one, other):
    """Returns the Kullback-Leibler divergence of normals, for each task."""
    (mean, deviation), (other_mean, other_deviation) = one, other
    ratio = deviation / other_deviation
    apart = (mean - other_mean) / other_deviation
    return tf.reduce_sum(
        0.5 * (tf.square(ratio) + tf.square(apart) - 1.0) - tf.math.log(ratio),
        axis=-1,
    )
