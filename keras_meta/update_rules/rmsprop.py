import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class RMSprop(UpdateRule):
    """Inner steps of RMSprop.

    The mean of the squared gradients of a task starts at zero and is kept
    from step to step. It is what `keras.optimizers.RMSprop` does, but as a
    function of tensors, through which the outer gradient passes.

    Args:
        learning_rate: Float above 0. Defaults to `0.001`.
        rho: Float from 0 to less than 1, how much of the mean of the squared
            gradients is kept. Defaults to `0.9`.
        epsilon: Float above 0, added to the mean before its root is taken.
            Defaults to `1e-7`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    rule = keras_meta.update_rules.RMSprop(learning_rate=0.001)
    maml = keras_meta.MAML(
        keras_meta.backbones.mlp(),
        inner_steps=5,
        inner_loss="mse",
        update_rule=rule,
    )
    ```

    Reference:
        - [Tieleman & Hinton, 2012](https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf)
    """

    def __init__(self, learning_rate=0.001, rho=0.9, epsilon=1e-7, **kwargs):
        super().__init__(**kwargs)
        arguments.check_positive_number("learning_rate", learning_rate)
        arguments.check_share("rho", rho, below_one=True)
        arguments.check_positive_number("epsilon", epsilon)
        self.learning_rate = float(learning_rate)
        self.rho = float(rho)
        self.epsilon = float(epsilon)

    def initial_state(self, weights):
        return [tf.zeros_like(weight) for weight in weights]

    def call(self, weights, gradients, state, step):
        squares = [
            self.rho * square + (1 - self.rho) * tf.square(gradient)
            for square, gradient in zip(state, gradients)
        ]
        new_weights = [
            weight
            - self.learning_rate * gradient / tf.sqrt(square + self.epsilon)
            for weight, gradient, square in zip(weights, gradients, squares)
        ]
        return new_weights, squares

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "rho": self.rho,
            "epsilon": self.epsilon,
        }
