import keras


@keras.saving.register_keras_serializable(package="keras_meta")
class Perceptron(keras.layers.Layer):
    """Dense layers over the last axis, whatever axes come before it.

    Args:
        hidden_units: Sequence of integers, the sizes of the hidden layers.
        outputs: Integer, the size of the last layer, without activation.
        activation: The activation of the hidden layers. Defaults to
            `"relu"`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, hidden_units, outputs, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.hidden_units = tuple(hidden_units)
        self.outputs = outputs
        self.activation = activation
        self.dense = [
            keras.layers.Dense(
                units, activation=activation, dtype=self.dtype_policy
            )
            for units in self.hidden_units
        ]
        self.dense.append(keras.layers.Dense(outputs, dtype=self.dtype_policy))

    def build(self, input_shape):
        for layer in self.dense:
            layer.build(input_shape)
            input_shape = (*input_shape[:-1], layer.units)

    def call(self, x):
        for layer in self.dense:
            x = layer(x)
        return x

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.outputs)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "outputs": self.outputs,
            "activation": self.activation,
        }
