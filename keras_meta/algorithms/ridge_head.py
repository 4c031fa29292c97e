import math

import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import ridge_regression
from keras_meta.algorithms.linear_head_model import LinearHeadModel


@keras.saving.register_keras_serializable(package="keras_meta")
class RidgeHead(LinearHeadModel):
    """Ridge regression on a learned representation, trained through (R2-D2).

    The head of a task is the solution of a ridge regression from the
    embeddings of its support set to its labels, which is a formula, and so has
    a gradient. The network learns embeddings from which a few examples are
    enough. How strongly the head is held small is learned along with it.

    For classes, the regression is on one-hot labels, and its answers times a
    learned sharpness, plus a learned shift, are the logits.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()`.
        strength: Float above 0, the weight of the squared head in what is
            minimized, as learning begins. Defaults to `1.0`.
        sharpness: Float above 0, the factor of the answers for classes, as
            learning begins. Defaults to `10.0`.
        ways: Integer, the ways of every episode. `None` (the default) takes
            them from the labels. XLA is used only where they are given.
        regression: Boolean. Whether labels are targets, floats
            `[examples, size]`, and not classes. Defaults to `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    episodes = keras_meta.episodes.from_arrays(
        images, labels, ways=5, shots=5, queries=5, meta_batch_size=4
    )
    model = keras_meta.RidgeHead(keras_meta.backbones.conv4(filters=16))
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(episodes, steps_per_epoch=2)
    ```

    Reference:
        - [Bertinetto et al., 2019](https://arxiv.org/abs/1805.08136)
    """

    def __init__(
        self,
        network,
        strength=1.0,
        sharpness=10.0,
        ways=None,
        regression=False,
        **kwargs,
    ):
        arguments.check_choice("regression", regression, (True, False))
        super().__init__(network, ways, regression, **kwargs)
        arguments.check_positive_number("strength", strength)
        arguments.check_positive_number("sharpness", sharpness)
        self.strength = strength
        self.sharpness = sharpness
        # Their exponentials are never negative.
        self.log_strength = self._add("log_strength", math.log(strength))
        if not regression:
            self.log_sharpness = self._add("log_sharpness", math.log(sharpness))
            self.shift = self._add("shift", 0.0)

    def _add(self, name, value):
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            autocast=False,
            name=name,
        )

    def fit_head(self, support, labels, weight):
        # The bias is the weight of a feature that is always 1.
        support = tf.concat([support, tf.ones_like(support[..., :1])], axis=-1)
        head = ridge_regression.solve(
            support, labels, weight, tf.exp(self.log_strength)
        )
        kernel, bias = head[:, :-1], head[:, -1]
        if self.regression:
            return kernel, bias
        sharpness = tf.exp(self.log_sharpness)
        return sharpness * kernel, sharpness * bias + self.shift

    def get_config(self):
        return {
            **super().get_config(),
            "strength": self.strength,
            "sharpness": self.sharpness,
        }
