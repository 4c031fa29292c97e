import keras
import tensorflow as tf


class HeldState(keras.layers.Layer):
    """Holds tensors between two steps, as weights that Keras saves.

    Args:
        structure: Nested structure of tensors, what it holds at first.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, structure, **kwargs):
        # Whole numbers, and seeds, must not be rounded.
        super().__init__(trainable=False, autocast=False, **kwargs)
        outline = tf.nest.map_structure(lambda leaf: 0, structure)
        # In a function, where Keras does not look into it.
        self._outline = lambda: outline
        self.held = [
            self.add_weight(
                shape=leaf.shape,
                dtype=leaf.dtype.name,
                initializer="zeros",
                trainable=False,
                name=f"held_{number}",
            )
            for number, leaf in enumerate(tf.nest.flatten(structure))
        ]
        self.write(structure)
        self.built = True

    def read(self):
        """Returns what is held, tensors in the structure."""
        return tf.nest.pack_sequence_as(
            self._outline(),
            [tf.convert_to_tensor(variable.value) for variable in self.held],
        )

    def write(self, structure):
        """Holds other tensors from now on."""
        for variable, leaf in zip(self.held, tf.nest.flatten(structure)):
            variable.assign(leaf)
