"""SavedModels of agents: they act, and adapt, where there is no Python.

What an agent knows of its task is a number of tensors, named `state_0`,
`state_1` and so on: signatures take them and give new ones.
"""

import tensorflow as tf


def write_saved_model(path, models, functions):
    """Writes a SavedModel.

    Args:
        path: String or path, the folder to write.
        models: List of the Keras models and layers that the functions use.
        functions: Dictionary from the names of signatures to tuples: a
            function of keyword arguments that returns a dictionary of
            tensors, and the dictionary of the specifications of these
            arguments.
    """
    module = tf.Module()
    module.held = [v.value for model in models for v in model.variables]
    signatures = {
        name: tf.function(function, autograph=False).get_concrete_function(
            **{
                key: tf.TensorSpec(spec.shape, spec.dtype, key)
                for key, spec in specs.items()
            }
        )
        for name, (function, specs) in functions.items()
    }
    tf.saved_model.save(module, str(path), signatures=signatures)


def named(prefix, structure):
    """Returns a dictionary of the leaves of a structure, by number.

    Args:
        prefix: String, such as `"state"`. A single leaf goes by it alone
            where it is that of observations.
        structure: Nested structure.

    Returns:
        Dictionary from names to leaves.
    """
    leaves = tf.nest.flatten(structure)
    if prefix != "state" and len(leaves) == 1:
        return {prefix: leaves[0]}
    return {f"{prefix}_{n}": leaf for n, leaf in enumerate(leaves)}


def unnamed(prefix, structure, inputs):
    """Turns what `named()` returned into the structure again.

    Args:
        prefix: String.
        structure: Nested structure like the one wanted.
        inputs: Dictionary that holds the leaves, and maybe more.

    Returns:
        Nested structure.
    """
    leaves = [inputs[name] for name in named(prefix, structure)]
    return tf.nest.pack_sequence_as(structure, leaves)


def with_axes(spec, *axes):
    """Returns a specification with further axes in front."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([*axes, *leaf.shape], leaf.dtype), spec
    )


def of_tensors(structure):
    """Returns the specifications of tensors."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), structure
    )
