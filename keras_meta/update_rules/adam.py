import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class Adam(UpdateRule):
    """Inner steps of Adam.

    The moments of a task start at zero and are kept from step to step. It is
    what `keras.optimizers.Adam` does, but as a function of tensors, through
    which the outer gradient passes. With `beta_1=0` there is no momentum, as
    in the code of the Reptile paper.

    Where all gradients of a weight have been zero so far, the slope of the
    root of its second moment does not exist, and is taken to be zero.

    Args:
        learning_rate: Float above 0. Defaults to `0.001`.
        beta_1: Float from 0 to less than 1, how much of the mean of the
            gradients is kept. Defaults to `0.9`.
        beta_2: Float from 0 to less than 1, how much of the mean of their
            squares is kept. Defaults to `0.999`.
        epsilon: Float above 0, added to the root. Defaults to `1e-7`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    rule = keras_meta.update_rules.Adam(learning_rate=0.001, beta_1=0.0)
    maml = keras_meta.MAML(
        keras_meta.backbones.mlp(),
        inner_steps=5,
        inner_loss="mse",
        update_rule=rule,
    )
    ```

    Reference:
        - [Kingma & Ba, 2015](https://arxiv.org/abs/1412.6980)
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        **kwargs,
    ):
        super().__init__(**kwargs)
        arguments.check_positive_number("learning_rate", learning_rate)
        arguments.check_share("beta_1", beta_1, below_one=True)
        arguments.check_share("beta_2", beta_2, below_one=True)
        arguments.check_positive_number("epsilon", epsilon)
        self.learning_rate = float(learning_rate)
        self.beta_1 = float(beta_1)
        self.beta_2 = float(beta_2)
        self.epsilon = float(epsilon)

    def initial_state(self, weights):
        zeros = [tf.zeros_like(weight) for weight in weights]
        return zeros, zeros

    def call(self, weights, gradients, state, step):
        # Both moments start at zero, which is corrected for. Single precision
        # is not enough where `beta_2` is near 1.
        count = tf.cast(step + 1, "float64")
        rate = self.learning_rate * tf.sqrt(1 - self.beta_2**count)
        rate = tf.cast(rate / (1 - self.beta_1**count), weights[0].dtype)
        means, squares = state
        if self.beta_1:
            means = [
                mean + (1 - self.beta_1) * (gradient - mean)
                for mean, gradient in zip(means, gradients)
            ]
        else:
            means = list(gradients)
        squares = [
            square + (1 - self.beta_2) * (tf.square(gradient) - square)
            for square, gradient in zip(squares, gradients)
        ]
        new_weights = [
            weight - rate * mean / (_root(square) + self.epsilon)
            for weight, mean, square in zip(weights, means, squares)
        ]
        return new_weights, (means, squares)

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


@tf.custom_gradient
def _root(values):
    root = tf.sqrt(values)
    # Zero for a root of zero, which has no slope.
    return root, lambda upstream: tf.math.divide_no_nan(0.5 * upstream, root)
