"""Keras preprocessing layers within episodes, each episode with its seed."""

import keras
import tensorflow as tf

from keras_meta import inner_loop
from keras_meta import task_mapping
from keras_meta.episodes import random_streams


def check_layer(name, layer):
    """Raises a `TypeError` where it cannot be called."""
    if layer is not None and not callable(layer):
        raise TypeError(
            f"`{name}` must be a Keras layer or a function of images. "
            f"Received: {name}={layer!r}."
        )


def prepare(name, layer, examples):
    """Checks a layer with the examples it will get, and builds it.

    Args:
        name: String, the name of the argument.
        layer: A Keras layer, a function, or `None`.
        examples: A `LabeledExamples`, or what has its attributes.
    """
    if not isinstance(layer, keras.Layer):
        return
    leaves = tf.nest.flatten(examples.element_spec)
    for part in layer._flatten_layers():
        value_range = getattr(part, "value_range", None)
        is_wide = value_range is not None and tuple(value_range) == (0, 255)
        if is_wide and any(leaf.dtype == tf.uint8 for leaf in leaves):
            raise ValueError(
                f"`{name}` must take images from 0 to 1, as uint8 comes out. "
                f"Received: the layer {part.name!r} with value_range=(0, 255). "
                "Make it with `value_range=(0, 1)`."
            )

    def zeros(leaf):
        dtype = "float32" if leaf.dtype == tf.uint8 else leaf.dtype
        return tf.zeros([1, *leaf.shape], dtype)

    # A layer that makes its generator or weights when it is built would make
    # them within the graph of the pipeline.
    layer(tf.nest.map_structure(zeros, examples.element_spec), training=True)


def augment(layer, inputs, seed, first_episode, stream):
    """Calls a layer on each task, its random numbers those of the episode.

    The layer's own generators are left as they are, so that episode n is the
    same in any meta-batch and after a resume.

    Args:
        layer: A Keras layer, or any function.
        inputs: Nested structure of tensors `[tasks, examples, ...]`.
        seed: Integer, of the episodes.
        first_episode: Integer tensor, the number of the first episode.
        stream: Integer above 0, another for each part of an episode.

    Returns:
        What the layer makes of `inputs`, with an axis of tasks.
    """
    if not isinstance(layer, keras.Layer):
        return task_mapping.map_tasks(layer, inputs, "sequential")
    generators = inner_loop.seed_variables(layer)
    tasks = tf.nest.flatten(inputs)[0].shape[0]
    seeds = random_streams.integers(
        seed, first_episode, tasks, 2 * max(len(generators), 1), stream
    )
    seeds = tf.bitcast(tf.reshape(seeds, [tasks, -1, 2]), "uint32")

    def call(task):
        inputs, seeds = task
        states = [
            (variable, tf.cast(seeds[index], variable.dtype))
            for index, variable in enumerate(generators)
        ]
        with keras.StatelessScope(state_mapping=states):
            return layer(inputs, training=True)

    return task_mapping.map_tasks(call, (inputs, seeds), "sequential")
