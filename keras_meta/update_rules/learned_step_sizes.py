import keras

from keras_meta import arguments
from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class LearnedStepSizes(UpdateRule):
    """Gradient descent with a learned rate for every layer and inner step.

    The outer loop learns the rates along with the initialization. It is one
    of the parts of MAML++.

    Args:
        learning_rate: Float above 0, where all rates start. Defaults to
            `0.01`.
        steps: Integer, for how many inner steps there are rates. Steps
            beyond take the rates of the last. Defaults to `5`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    model = keras_meta.MAML(
        keras_meta.backbones.mlp(),
        inner_steps=3,
        update_rule=keras_meta.update_rules.LearnedStepSizes(steps=3),
    )
    model.compile(optimizer="adam", loss="mse")
    model.fit(keras_meta.episodes.sinusoids(), steps_per_epoch=100)
    ```

    Reference:
        - [Antoniou et al., 2019](https://arxiv.org/abs/1810.09502)
    """

    def __init__(self, learning_rate=0.01, steps=5, **kwargs):
        super().__init__(**kwargs)
        arguments.check_positive_number("learning_rate", learning_rate)
        arguments.check_positive_integer("steps", steps)
        self.learning_rate = float(learning_rate)
        self.steps = int(steps)

    def build_for(self, variables):
        super().build_for(variables)
        # The kernel and the bias of a layer share the path of the layer.
        layers = [variable.path.rpartition("/")[0] for variable in variables]
        names = list(dict.fromkeys(layers))
        self.layer_numbers = [names.index(layer) for layer in layers]
        self.rates = self.add_weight(
            shape=(self.steps, len(names)),
            initializer=keras.initializers.Constant(self.learning_rate),
            autocast=False,
            name="rates",
        )

    def call(self, weights, gradients, state, step):
        rates = keras.ops.convert_to_tensor(self.rates)
        rates = rates[keras.ops.minimum(step, self.steps - 1)]
        new_weights = [
            weight - keras.ops.cast(rates[number], weight.dtype) * gradient
            for weight, gradient, number in zip(
                weights, gradients, self.layer_numbers
            )
        ]
        return new_weights, state

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "steps": self.steps,
        }
