import keras

from keras_meta import arguments
from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class MetaSGD(UpdateRule):
    """Meta-SGD: gradient descent with a learned rate for every weight.

    The outer loop learns the rates along with the initialization, so that
    they are both the size and the direction of an inner step: a rate may
    become zero, or negative.

    Args:
        learning_rate: Float above 0, where all rates start. Defaults to
            `0.01`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    model = keras_meta.MAML(
        keras_meta.backbones.mlp(),
        update_rule=keras_meta.update_rules.MetaSGD(learning_rate=0.01),
    )
    model.compile(optimizer="adam", loss="mse")
    model.fit(keras_meta.episodes.sinusoids(), steps_per_epoch=100)
    ```

    Reference:
        - [Li et al., 2017](https://arxiv.org/abs/1707.09835)
    """

    def __init__(self, learning_rate=0.01, **kwargs):
        super().__init__(**kwargs)
        arguments.check_positive_number("learning_rate", learning_rate)
        self.learning_rate = float(learning_rate)

    def build_for(self, variables):
        super().build_for(variables)
        self.rates = [
            self.add_weight(
                shape=variable.shape,
                initializer=keras.initializers.Constant(self.learning_rate),
                autocast=False,
                name=f"rate_{number}",
            )
            for number, variable in enumerate(variables)
        ]

    def call(self, weights, gradients, state, step):
        new_weights = [
            weight - rate * gradient
            for weight, rate, gradient in zip(weights, self.rates, gradients)
        ]
        return new_weights, state

    def get_config(self):
        return {**super().get_config(), "learning_rate": self.learning_rate}
