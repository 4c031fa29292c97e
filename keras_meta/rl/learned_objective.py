import keras

from keras_meta import arguments


@keras.saving.register_keras_serializable(package="keras_meta")
class LearnedObjective(keras.Model):
    """A loss for policies that has been learned: an LSTM over what happened.

    It reads windows of rollouts backwards: what was done, what the policy
    would do now, what came of it, and what a critic expects. Its gradient by
    what the policy would do tells the policy where to go. It sees neither
    observations nor how many actions there are, so that one objective serves
    environments of any kind.

    `MetaGenRLAgent` trains it and uses it. Save and load it as any Keras
    model.

    Args:
        discount: Float from 0 to 1, what a reward is worth one step later.
            What the critic expects must be counted by the same. Defaults to
            `0.97`.
        units: Integer of 1 or more, the width of the LSTM and of the layers
            around it. Defaults to `32`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    objective = keras_meta.rl.LearnedObjective()
    objective.save("objective.keras")
    objective = keras.models.load_model("objective.keras")
    ```

    Reference:
        - [Kirsch et al., 2020](https://arxiv.org/abs/1910.04098)
    """

    def __init__(self, discount=0.97, units=32, **kwargs):
        super().__init__(**kwargs)
        arguments.check_share("discount", discount)
        arguments.check_positive_integer("units", units)
        self.discount = float(discount)
        self.units = int(units)
        self.of_actions = keras.layers.Dense(units, activation="silu")
        self.cell = keras.layers.LSTMCell(units)
        self.hidden = keras.layers.Dense(units, activation="silu")
        # Without a bias, of which no policy would know.
        self.outputs_layer = keras.layers.Dense(1, use_bias=False)
        width = units + 5
        self.of_actions.build((None, None, None, 4))
        self.cell.build((None, width))
        self.hidden.build((None, None, width + units))
        self.outputs_layer.build((None, None, units))
        self.built = True

    def call(self, inputs):
        """Returns the loss of each step of windows of rollouts.

        Args:
            inputs: Dictionary of float tensors of one task's windows.
                `action` and `policy_action`, `[windows, steps, actions]`:
                what was done, and what the policy would do, in units of the
                bounds. `reward`; `value` and `next_value`, what the critic
                expects of what the policy would do at a step and after it;
                and `goes_on`, 0 where a rollout ends: `[windows, steps]`.

        Returns:
            Float tensor `[windows, steps]`.
        """
        ops = keras.ops
        value, next_value = inputs["value"], inputs["next_value"]
        goes_on = inputs["goes_on"]
        error = inputs["reward"] + self.discount * goes_on * next_value - value
        # Counted by how far they go in this task: tasks differ in that.
        middle, spread = ops.mean(value), ops.std(value) + 1e-3
        scalars = [
            inputs["reward"] / spread,
            (value - middle) / spread,
            (next_value - middle) / spread,
            error / (ops.std(error) + 1e-3),
            goes_on,
        ]
        features = ops.concatenate(
            [ops.stack(scalars, axis=-1), self._compared(inputs)], axis=-1
        )
        after = self._backwards(features, goes_on)
        features = ops.concatenate([after, features], axis=-1)
        return self.outputs_layer(self.hidden(features))[..., 0]

    def _compared(self, inputs):
        """Returns features of what was done and what would be."""
        action, policy_action = inputs["action"], inputs["policy_action"]
        difference = action - policy_action
        parts = [action, policy_action, 3 * difference, (3 * difference) ** 2]
        features = self.of_actions(keras.ops.stack(parts, axis=-1))
        # Whatever number of actions: all by the same weights, and the mean.
        return keras.ops.mean(features, axis=-2)

    def _backwards(self, features, goes_on):
        """Returns what the LSTM has read at each step, from the end on."""
        zeros = keras.ops.zeros_like(features[:, 0, :1])
        states = [keras.ops.tile(zeros, (1, self.units))] * 2
        read = []
        # The cell and not the layer: a loop of the graph is many times
        # slower where the gradient is taken twice.
        for step in reversed(range(features.shape[1])):
            states = [state * goes_on[:, step, None] for state in states]
            output, states = self.cell(features[:, step], states)
            read.append(output)
        return keras.ops.stack(read[::-1], axis=1)

    def get_config(self):
        return {
            **super().get_config(),
            "discount": self.discount,
            "units": self.units,
        }
