"""What the agents of all kinds are made of."""

import keras
import tensorflow as tf

from keras_meta import backbones
from keras_meta.rl import networks


def features(model, *specs):
    """Returns a copy of a model with new weights; dense layers by default.

    Args:
        model: A built `keras.Model`, or `None` for two dense layers.
        *specs: The specifications of what it gets, joined to one vector
            where they are several.

    Returns:
        A `keras.Model` without a head.

    Raises:
        ValueError: Where dense layers do not do.
    """
    if model is not None:
        networks.check_model(model)
        return keras.models.clone_model(model)
    leaves = tf.nest.flatten(specs)
    if any(leaf.dtype.is_integer for leaf in leaves) or len(leaves) > len(
        specs
    ):
        raise ValueError(
            "Where no model is given, an observation must be one real tensor. "
            f"Received: {specs[0]}. Give a `keras.Model` for it."
        )
    size = sum(leaf.shape.num_elements() for leaf in leaves)
    shape = leaves[0].shape if len(leaves) == 1 else (size,)
    return backbones.mlp(tuple(shape), (64, 64), outputs=None)


def step_counter():
    """Returns a new variable that counts the steps of an agent."""
    # Not the default, which all agents of a process would share.
    return tf.Variable(0, trainable=False, dtype=tf.int64)
