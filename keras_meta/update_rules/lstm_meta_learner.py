import math

import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.update_rules import coordinates
from keras_meta.update_rules import gradient_preprocessing
from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class LSTMMetaLearner(UpdateRule):
    """Gradient descent as an LSTM: its cell state is the weight.

    `weight = forget_gate * weight - input_gate * gradient`, where the input
    gate is the rate of the step and the forget gate lets a weight shrink.
    Both are learned functions: of features of the gradients so far, which a
    plain LSTM computes, of the weight, and of the gate at the last step.
    What they learn is shared by all coordinates of all weights, while gates
    and features are each coordinate's own. They start at zero with every
    task. The initialization of the weights, which the paper learns as well,
    is the network's own weights, and those the outer loop learns anyway.

    The paper takes the gradients for constants in the outer gradient. That
    is `first_order=True` of `keras_meta.MAML`; with `False` the outer
    gradient passes through them, and is exact. The paper's plain LSTM also
    reads the support loss. Update rules do not see it, so that here it reads
    the gradients alone.

    What is learned does not depend on the shapes of the weights: a trained
    rule keeps it when it is handed to a model with another network.

    Args:
        learning_rate: Float above 0 and less than 1, near which the input
            gates start. Defaults to `0.01`.
        forget_gate: Float above 0 and less than 1, near which the forget
            gates start: how much of a weight a step keeps. Defaults to
            `0.99`.
        units: Integer, the units of the plain LSTM. Defaults to `20`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    model = keras_meta.MAML(
        keras_meta.backbones.mlp(hidden_units=(16,)),
        inner_steps=2,
        first_order=True,
        update_rule=keras_meta.update_rules.LSTMMetaLearner(),
    )
    model.compile(optimizer="adam", loss="mse")
    model.fit(keras_meta.episodes.sinusoids(), steps_per_epoch=100)
    ```

    Reference:
        - [Ravi & Larochelle, 2017](https://openreview.net/forum?id=rJY0-Kcll)
    """

    coordinatewise = True

    def __init__(
        self, learning_rate=0.01, forget_gate=0.99, units=20, **kwargs
    ):
        super().__init__(**kwargs)
        # Both are where a sigmoid starts, which is never 0 or 1.
        for name, value in (
            ("learning_rate", learning_rate),
            ("forget_gate", forget_gate),
        ):
            arguments.check_positive_number(name, value)
            arguments.check_share(name, value, below_one=True)
        arguments.check_positive_integer("units", units)
        self.learning_rate = float(learning_rate)
        self.forget_gate = float(forget_gate)
        self.units = int(units)
        self.cell = None

    def build_for(self, variables):
        super().build_for(variables)
        if self.cell is not None:
            return  # Learned with another network.
        # Of full precision also where the model computes in half.
        self.cell = keras.layers.LSTMCell(self.units, dtype=self.variable_dtype)
        self.cell.build((None, 2))
        # The biases say where the gates start. The published code draws them,
        # with gates of 0.982 to 0.993 and of 0.007 to 0.018.
        self.forget_weights = self._add_gate("forget", self.forget_gate)
        self.input_weights = self._add_gate("input", self.learning_rate)

    def _add_gate(self, name, start):
        kernel = self.add_weight(
            shape=(self.units + 2, 1),
            initializer=keras.initializers.RandomUniform(-0.01, 0.01),
            autocast=False,
            name=f"{name}_kernel",
        )
        bias = self.add_weight(
            shape=(1,),
            initializer=keras.initializers.Constant(
                math.log(start) - math.log1p(-start)
            ),
            autocast=False,
            name=f"{name}_bias",
        )
        return kernel, bias

    def initial_state(self, weights):
        rows = coordinates.count(weights)
        gates = tf.zeros([rows, 1], self.variable_dtype)
        return self.cell.get_initial_state(rows), gates, gates

    def call(self, weights, gradients, state, step):
        cell_state, forget_gates, input_gates = state
        features, cell_state = self.cell(
            gradient_preprocessing.log_and_sign(
                coordinates.join(gradients, self.variable_dtype)
            ),
            cell_state,
        )
        values = coordinates.join(weights, self.variable_dtype)[:, None]
        features = tf.concat([features, values], axis=1)
        # The published code hands on what is inside the sigmoid; the paper,
        # and this, the gates themselves.
        forget_gates = _gates(features, forget_gates, *self.forget_weights)
        input_gates = _gates(features, input_gates, *self.input_weights)
        new_weights = [
            kept * weight - rate * gradient
            for weight, gradient, kept, rate in zip(
                weights,
                gradients,
                coordinates.split(forget_gates, weights),
                coordinates.split(input_gates, weights),
            )
        ]
        return new_weights, (cell_state, forget_gates, input_gates)

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "forget_gate": self.forget_gate,
            "units": self.units,
        }


def _gates(features, last_gates, kernel, bias):
    inputs = tf.concat([features, last_gates], axis=1)
    return tf.sigmoid(tf.matmul(inputs, kernel) + bias)
