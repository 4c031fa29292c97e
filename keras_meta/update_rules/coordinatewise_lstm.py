import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.update_rules import coordinates
from keras_meta.update_rules import gradient_preprocessing
from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class CoordinatewiseLSTM(UpdateRule):
    """Inner steps that an LSTM answers, coordinate by coordinate.

    Each coordinate of each weight has a small LSTM of its own. It reads the
    coordinate's gradient, as two numbers (see the paper's appendix A), and
    a linear layer on top of it says by how much the coordinate moves. The
    weights of the LSTM are shared by all coordinates, and the outer loop
    learns them along with the initialization; the state is the coordinate's
    own. It starts at zero with every task and is kept from step to step.

    The paper takes the gradients for constants in the outer gradient. That
    is `first_order=True` of `keras_meta.MAML`; with `False` the outer
    gradient passes through them, and is exact.

    What is learned does not depend on the shapes of the weights: a trained
    rule keeps it when it is handed to a model with another network.

    Args:
        units: Tuple of integers, the units of each layer of the LSTM.
            Defaults to `(20, 20)`.
        output_scale: Float above 0, by which the answers are multiplied, as
            weights move little. Defaults to `0.1`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    model = keras_meta.MAML(
        keras_meta.backbones.mlp(hidden_units=(16,)),
        inner_steps=2,
        first_order=True,
        update_rule=keras_meta.update_rules.CoordinatewiseLSTM(),
    )
    model.compile(optimizer="adam", loss="mse")
    model.fit(keras_meta.episodes.sinusoids(), steps_per_epoch=100)
    ```

    Reference:
        - [Andrychowicz et al., 2016](https://arxiv.org/abs/1606.04474)
    """

    coordinatewise = True

    def __init__(self, units=(20, 20), output_scale=0.1, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(units, (tuple, list)) or not units:
            raise ValueError(
                "`units` must be a tuple of integers, one for each layer. "
                f"Received: units={units!r}. One layer is `units=(20,)`."
            )
        for number in units:
            arguments.check_positive_integer("units", number)
        arguments.check_positive_number("output_scale", output_scale)
        self.units = tuple(int(number) for number in units)
        self.output_scale = float(output_scale)
        self.cells = []

    def build_for(self, variables):
        super().build_for(variables)
        if self.cells:
            return  # Learned with another network.
        features = 2
        for units in self.units:
            # Of full precision also where the model computes in half.
            cell = keras.layers.LSTMCell(units, dtype=self.variable_dtype)
            cell.build((None, features))
            self.cells.append(cell)
            features = units
        self.output_kernel = self.add_weight(
            shape=(features, 1), autocast=False, name="output_kernel"
        )
        self.output_bias = self.add_weight(
            shape=(1,), initializer="zeros", autocast=False, name="output_bias"
        )

    def initial_state(self, weights):
        rows = coordinates.count(weights)
        return [cell.get_initial_state(rows) for cell in self.cells]

    def call(self, weights, gradients, state, step):
        features = gradient_preprocessing.log_and_sign(
            coordinates.join(gradients, self.variable_dtype)
        )
        new_state = []
        for cell, cell_state in zip(self.cells, state):
            features, cell_state = cell(features, cell_state)
            new_state.append(cell_state)
        moves = tf.matmul(features, self.output_kernel) + self.output_bias
        moves = coordinates.split(self.output_scale * moves, weights)
        new_weights = [weight + move for weight, move in zip(weights, moves)]
        return new_weights, new_state

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "output_scale": self.output_scale,
        }
