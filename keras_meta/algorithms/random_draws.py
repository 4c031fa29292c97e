"""Random draws of training, the same after a model was saved and loaded."""

import random

import tensorflow as tf


def add_seed(model, name):
    """Adds the seed of random draws to a model, as a weight.

    A weight, and not a `keras.random.SeedGenerator`, which Keras does not
    save: training goes on from a file as it would have without.

    Args:
        model: A `keras.Model`.
        name: String, the name of the weight.

    Returns:
        A variable, int64 `[2]`. To draw, take its value, and add 1 to the
        second number.
    """
    return model.add_weight(
        shape=(2,),
        initializer=_new_seed,
        dtype="int64",
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
        name=name,
    )


def _new_seed(shape, dtype=None):
    # Python's generator is what `keras.utils.set_random_seed()` seeds.
    return tf.constant([random.randrange(2**31), 0], dtype)


def integers(shape, seed):
    """Returns integers uniform over all of int32.

    Args:
        shape: Shape, as of a tensor.
        seed: Integer tensor `[2]`.

    Returns:
        Tensor, int32.
    """
    # With an algorithm left open, or floats, XLA would draw other ones.
    return tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype="int32", alg="philox"
    )
