import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class Momentum(UpdateRule):
    """Inner steps of gradient descent with momentum.

    The velocity of a task starts at zero and is kept from step to step:
    `velocity = momentum * velocity - rate * gradient`, and the weight moves
    by it. It is what `keras.optimizers.SGD(momentum=...)` does, but as a
    function of tensors, through which the outer gradient passes.

    Args:
        learning_rate: Float above 0. Defaults to `0.01`.
        momentum: Float from 0 to 1. Defaults to `0.9`.
        nesterov: Boolean. Whether the weight moves by what the velocity will
            be after the next step. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    rule = keras_meta.update_rules.Momentum(learning_rate=0.01)
    maml = keras_meta.MAML(
        keras_meta.backbones.mlp(),
        inner_steps=5,
        inner_loss="mse",
        update_rule=rule,
    )
    ```

    Reference:
        - [Sutskever et al., 2013](https://proceedings.mlr.press/v28/sutskever13.html)
    """

    def __init__(
        self, learning_rate=0.01, momentum=0.9, nesterov=False, **kwargs
    ):
        super().__init__(**kwargs)
        arguments.check_positive_number("learning_rate", learning_rate)
        arguments.check_share("momentum", momentum)
        arguments.check_choice("nesterov", nesterov, (True, False))
        self.learning_rate = float(learning_rate)
        self.momentum = float(momentum)
        self.nesterov = nesterov

    def initial_state(self, weights):
        return [tf.zeros_like(weight) for weight in weights]

    def call(self, weights, gradients, state, step):
        velocities = [
            self.momentum * velocity - self.learning_rate * gradient
            for velocity, gradient in zip(state, gradients)
        ]
        moves = velocities
        if self.nesterov:
            moves = [
                self.momentum * velocity - self.learning_rate * gradient
                for velocity, gradient in zip(velocities, gradients)
            ]
        new_weights = [weight + move for weight, move in zip(weights, moves)]
        return new_weights, velocities

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
        }
