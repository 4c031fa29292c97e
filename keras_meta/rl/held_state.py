import keras
import tensorflow as tf


class HeldState(keras.layers.Layer):
    """Holds tensors between two steps, as weights that Keras saves.

    Args:
        parts: Dictionary from names to nested structures of tensors, what it
            holds at first.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, parts, **kwargs):
        # Whole numbers, and seeds, must not be rounded.
        super().__init__(trainable=False, autocast=False, **kwargs)
        outline = tf.nest.map_structure(lambda leaf: 0, parts)
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
            for number, leaf in enumerate(tf.nest.flatten(parts))
        ]
        self.write(**parts)
        self.built = True

    def read(self):
        """Returns the dictionary of what is held, as tensors."""
        return tf.nest.map_structure(
            lambda variable: tf.convert_to_tensor(variable.value),
            self._variables_by_part(),
        )

    def write(self, **parts):
        """Holds something else in some parts from now on."""
        variables = self._variables_by_part()
        for name, part in parts.items():
            tf.nest.map_structure(
                lambda variable, leaf: variable.assign(leaf),
                variables[name],
                part,
            )

    def _variables_by_part(self):
        return tf.nest.pack_sequence_as(self._outline(), self.held)
