import keras
from keras import ops

from keras_meta import arguments


@keras.saving.register_keras_serializable(package="keras_meta")
class AssociativeCell(keras.layers.Layer):
    """A recurrent cell that writes values under keys, and looks them up.

    It keeps the last input and some small matrices. In each step it writes a
    value under a key, each number in the place of what was there by a share
    of its own, and reads by another key. Where a table is to be remembered, of
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
        self.kept = keras.layers.Dense(units, use_bias=False)
        self.addresses = keras.layers.Dense(2 * heads * keys)
        self.written = keras.layers.Dense(2 * heads * values)
        self.share = keras.layers.Dense(heads * values, activation="sigmoid")
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
        room = self.heads * self.values
        self.addresses.build((None, seen))
        self.written.build((None, seen))
        self.share.build((None, seen + room))
        self.hidden.build((None, seen + room))
        self.built = True

    def call(self, inputs, states, training=False):
        last, memory = states
        seen = ops.concatenate([inputs, last], axis=-1)
        keys = ops.reshape(self.addresses(seen), (-1, 2, self.heads, self.keys))
        # From the start, a key is more than the mean of all places.
        write, read = ops.unstack(ops.softmax(2.0 * keys)[..., None], axis=1)
        shape = (-1, self.heads, self.keys, self.values)
        memory = ops.reshape(memory, shape)
        there = ops.sum(write * memory, axis=-2, keepdims=True)
        value, factor = ops.split(self.written(seen), 2, axis=-1)
        # A product: what an action paid is the action times the reward. It
        # does not depend on the memory, which so stays within what is written.
        value = value * (1.0 + factor)
        value = ops.reshape(value, (-1, self.heads, 1, self.values))
        # This does: knowing what is there, it can take a mean over many steps.
        share = self.share(self._joined(seen, there))
        share = ops.reshape(share, (-1, self.heads, 1, self.values))
        memory = memory + share * write * (value - there)
        found = ops.sum(read * memory, axis=-2)
        output = self.hidden(self._joined(seen, found))
        memory = ops.reshape(memory, (-1, self.state_size[1]))
        return output, [self.kept(inputs), memory]

    def _joined(self, seen, values):
        values = ops.reshape(values, (-1, self.heads * self.values))
        return ops.concatenate([seen, values], axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "heads": self.heads,
            "keys": self.keys,
            "values": self.values,
        }
