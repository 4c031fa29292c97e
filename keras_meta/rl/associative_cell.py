import keras
from keras import ops

from keras_meta import arguments


@keras.saving.register_keras_serializable(package="keras_meta")
class AssociativeCell(keras.layers.Layer):
    """A recurrent cell that writes values under keys, and looks them up.

    It keeps the last input and some small matrices. In each step it writes a
    value under a key, in the place of what was there by the share that it
    chooses, and reads by another key. Where a table is to be remembered, of
    what an action pays in a state, say, this is learned in far fewer steps
    than with a `keras.layers.GRUCell`.

    It serves wherever Keras takes a cell: in `RL2Agent`, in
    `KerasRecurrentNetwork`, and in `keras.layers.RNN`.

    Args:
        units: Integer of 1 or more, the size of the output, and of what is
            kept of the last input.
        heads: Integer of 1 or more, how many memories there are. Defaults to
            `4`.
        keys: Integer of 1 or more, the places of a memory. Defaults to `16`.
        values: Integer of 1 or more, the size of what is written to a place.
            Defaults to `8`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    mdps = keras_meta.rl.environments.TabularMDPs()
    trials = keras_meta.rl.environments.Trials(mdps, rollouts=10)
    agent = keras_meta.rl.RL2Agent(
        trials.time_step_spec(),
        trials.action_spec(),
        keras_meta.rl.AssociativeCell(128),
        prediction_weight=0.5,
    )
    ```

    Reference:
        - [Schmidhuber, 1992](https://doi.org/10.1162/neco.1992.4.1.131)
        - [Schlag et al., 2021](https://arxiv.org/abs/2102.11174)
    """

    def __init__(self, units, heads=4, keys=16, values=8, **kwargs):
        super().__init__(**kwargs)
        sizes = {"units": units, "heads": heads, "keys": keys, "values": values}
        for name, size in sizes.items():
            arguments.check_positive_integer(name, size)
            setattr(self, name, int(size))
        self._sizes = [heads * keys] * 2 + [heads * values] * 2 + [heads]
        self.kept = keras.layers.Dense(units, use_bias=False)
        self.addresses = keras.layers.Dense(sum(self._sizes))
        self.hidden = keras.layers.Dense(units, activation="relu")

    @property
    def output_size(self):
        return self.units

    @property
    def state_size(self):
        return [self.units, self.heads * self.keys * self.values]

    def build(self, input_shape):
        self.kept.build(input_shape)
        seen = input_shape[-1] + self.units
        self.addresses.build((None, seen))
        self.hidden.build((None, seen + self.heads * self.values))
        self.built = True

    def call(self, inputs, states, training=False):
        last, memory = states
        seen = ops.concatenate([inputs, last], axis=-1)
        ends = [sum(self._sizes[:count]) for count in range(1, 5)]
        write, read, value, factor, share = ops.split(
            self.addresses(seen), ends, axis=-1
        )
        write, read = (
            ops.softmax(2.0 * ops.reshape(key, (-1, self.heads, self.keys)))
            for key in (write, read)
        )
        # A product: what an action paid is the action times the reward.
        value = value * (1.0 + factor)
        value = ops.reshape(value, (-1, self.heads, 1, self.values))
        shape = (-1, self.heads, self.keys, self.values)
        memory = ops.reshape(memory, shape)
        there = ops.sum(write[..., None] * memory, axis=-2, keepdims=True)
        write = write * ops.sigmoid(share)[..., None]
        memory = memory + write[..., None] * (value - there)
        found = ops.sum(read[..., None] * memory, axis=-2)
        found = ops.reshape(found, (-1, self.heads * self.values))
        output = self.hidden(ops.concatenate([seen, found], axis=-1))
        memory = ops.reshape(memory, (-1, self.state_size[1]))
        return output, [self.kept(inputs), memory]

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "heads": self.heads,
            "keys": self.keys,
            "values": self.values,
        }
