import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import normalization
from keras_meta import ridge_regression
from keras_meta.algorithms.amortized_model import weighted_mean
from keras_meta.algorithms.class_labels import class_means
from keras_meta.algorithms.linear_head_model import LinearHeadModel
from keras_meta.algorithms.pretraining import Pretraining
from keras_meta.algorithms.pretraining import check_has_head

CLASSIFIERS = ("nearest_centroid", "cosine", "ridge", "logistic")


@keras.saving.register_keras_serializable(package="keras_meta")
class FrozenRepresentation(Pretraining, LinearHeadModel):
    """A pretrained representation, and a simple model on top for each task.

    `fit()` is ordinary training on labeled examples, of all training classes
    at once, as made by `keras_meta.episodes.examples()`; or the network comes
    pretrained. For a task the network stays as it is, and a linear model is
    fitted to the embeddings of the support set. Despite its simplicity it is
    often as good as learning to learn.

    The simple models:

    - `"nearest_centroid"`: the nearest class mean, by squared Euclidean
      distance.
    - `"cosine"`: cosines to a weight vector for each class, times
      `sharpness`. The vectors start as the class means and follow the
      gradient of the cross-entropy. `fit()` trains a head of cosines, too
      (Baseline++).
    - `"ridge"`: ridge regression on one-hot labels, or targets, in closed
      form.
    - `"logistic"`: logistic regression on embeddings of length 1, held small
      by `strength`.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()` or one of
            `keras.applications` with `pooling="avg"`.
        classifier: One of the above. Defaults to `"nearest_centroid"`.
        pretraining_outputs: Integer, the number of classes that `fit()` sees,
            or the size of a target. `None` (the default) where the network
            comes pretrained.
        strength: Float above 0, the weight of the squared head in what is
            minimized, beside the sum over the support set; only for `"ridge"`
            and `"logistic"`. Defaults to `1.0`.
        sharpness: Float above 0, the factor of cosines, and of the answers
            of a ridge regression for classes. Defaults to `10.0`.
        iterations: Integer, the steps that fit the head; only for `"cosine"`
            and `"logistic"`. Defaults to `100`.
        ways: Integer, the ways of every episode. `None` (the default) takes
            them from the labels. XLA is used only where they are given.
        regression: Boolean. Whether labels are targets, floats
            `[examples, size]`, and not classes; only for `"ridge"`. Defaults
            to `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    train, test = keras_meta.episodes.class_split(labels)
    model = keras_meta.FrozenRepresentation(
        keras_meta.backbones.conv4(filters=16),
        classifier="logistic",
        pretraining_outputs=len(train),
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        keras_meta.episodes.examples(
            images, labels, classes=train, held_out=test
        ),
        epochs=2,
    )
    episodes = keras_meta.episodes.from_arrays(
        images, labels, ways=5, shots=1, queries=5, classes=test, episodes=8
    )
    print(keras_meta.evaluate_episodes(model, episodes))
    ```

    Reference:
        - [Chen et al., 2019](https://arxiv.org/abs/1904.04232) (Baseline++)
        - [Tian et al., 2020](https://arxiv.org/abs/2003.11539)
        - [Wang et al., 2019](https://arxiv.org/abs/1911.04623)
    """

    def __init__(
        self,
        network,
        classifier="nearest_centroid",
        pretraining_outputs=None,
        strength=1.0,
        sharpness=10.0,
        iterations=100,
        ways=None,
        regression=False,
        **kwargs,
    ):
        arguments.check_choice("classifier", classifier, CLASSIFIERS)
        arguments.check_choice("regression", regression, (True, False))
        arguments.check_positive_number("strength", strength)
        arguments.check_positive_number("sharpness", sharpness)
        arguments.check_positive_integer("iterations", iterations)
        if regression and classifier != "ridge":
            raise ValueError(
                "The simple model of a regression must be 'ridge'. Received: "
                f"classifier={classifier!r} with regression=True."
            )
        super().__init__(network, ways, regression, **kwargs)
        self.classifier = classifier
        self.strength = strength
        self.sharpness = sharpness
        self.iterations = iterations
        self.pretraining_outputs = pretraining_outputs
        self.pretraining_head = self.make_pretraining_head(pretraining_outputs)

    @property
    def normalizes(self):
        """Whether embeddings are divided by their lengths first."""
        return self.classifier in ("cosine", "logistic")

    def answer_examples(self, x, training):
        check_has_head(self)
        embeddings = normalization.call_network(self.network, x, training)
        embeddings = tf.cast(embeddings, self.variable_dtype)
        if self.classifier != "cosine":
            return self.pretraining_head(embeddings)
        vectors = tf.convert_to_tensor(self.pretraining_head.kernel)
        cosines = tf.matmul(self.features(embeddings), _unit_columns(vectors))
        return self.sharpness * cosines

    def fit_head(self, support, labels, weight):
        fit = {
            "nearest_centroid": _fit_centroids,
            "cosine": self._fit_cosines,
            "ridge": self._fit_ridge,
            "logistic": self._fit_logistic,
        }[self.classifier]
        return fit(support, labels, weight)

    def _fit_ridge(self, support, labels, weight):
        # The means are taken off, so that the bias costs nothing.
        middle = weighted_mean(support, weight)[:, None]
        level = weighted_mean(labels, weight)[:, None]
        kernel = ridge_regression.solve(
            support - middle, labels - level, weight, self.strength
        )
        bias = (level - tf.matmul(middle, kernel))[:, 0]
        if self.regression:
            return kernel, bias
        return self.sharpness * kernel, self.sharpness * bias

    def _fit_cosines(self, support, labels, weight):
        means = class_means(support, labels, weight)
        vectors = tf.transpose(means, [0, 2, 1])

        def gradient(vectors):
            with tf.GradientTape() as tape:
                tape.watch(vectors)
                logits = self.sharpness * tf.matmul(
                    support, _unit_columns(vectors)
                )
                loss = _cross_entropy(logits, labels, weight)
            return tape.gradient(loss, vectors)

        vectors = _descend(
            _unit_columns(vectors), gradient, 0.1, self.iterations
        )
        return self.sharpness * _unit_columns(vectors), tf.zeros_like(
            vectors[:, 0]
        )

    def _fit_logistic(self, support, labels, weight):
        # A feature that is always 1 has the bias for its weight.
        ones = tf.ones_like(support[..., :1])
        support = tf.concat([support, ones], axis=-1)

        def gradient(head):
            wrong = tf.nn.softmax(tf.matmul(support, head)) - labels
            wrong *= weight[..., None]
            slope = tf.matmul(support, wrong, transpose_a=True)
            return slope + self.strength * head

        # The curvature is at most half the sum of squares, and the strength.
        squares = tf.reduce_sum(
            weight * tf.reduce_sum(tf.square(support), axis=-1), axis=1
        )
        rate = 1.0 / (0.5 * squares + self.strength)
        size, ways = support.shape[-1], tf.shape(labels)[-1]
        head = tf.zeros([tf.shape(support)[0], size, ways], support.dtype)
        head = _descend(head, gradient, rate[:, None, None], self.iterations)
        return head[:, :-1], head[:, -1]

    def get_config(self):
        return {
            **super().get_config(),
            "classifier": self.classifier,
            "pretraining_outputs": self.pretraining_outputs,
            "strength": self.strength,
            "sharpness": self.sharpness,
            "iterations": self.iterations,
        }


def _fit_centroids(support, labels, weight):
    means = class_means(support, labels, weight)
    # The squared distance, but for what is the same for all classes.
    squares = tf.reduce_sum(tf.square(means), axis=-1)
    return 2.0 * tf.transpose(means, [0, 2, 1]), -squares


def _unit_columns(vectors):
    return tf.math.l2_normalize(vectors, axis=-2, epsilon=1e-12)


def _cross_entropy(logits, labels, weight):
    losses = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_sum(losses * weight)


def _descend(start, gradient, rate, iterations):
    """Returns where accelerated gradient descent (Nesterov) arrives."""

    # The change is carried on, and not the values before: a loop of LiteRT
    # that hands a value on in another place gives the wrong one.
    def step(number, values, change):
        ahead = (number - 1.0) / (number + 2.0)
        point = values + ahead * change
        new = point - rate * gradient(point)
        return number + 1.0, new, new - values

    _, values, _ = tf.while_loop(
        lambda *_: True,
        step,
        (tf.constant(1.0, start.dtype), start, tf.zeros_like(start)),
        maximum_iterations=iterations,
    )
    return values
