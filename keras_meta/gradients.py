"""Gradients that are tensors, whatever a tape makes of them."""

import tensorflow as tf


def dense_gradients(tape, target, sources, upstream=None):
    """Returns the gradients that a tape has, each of them a tensor.

    Args:
        tape: A `tf.GradientTape`.
        target: Tensor, or list of tensors.
        sources: List of what the gradients are taken by.
        upstream: Optional, the gradients of the target.

    Returns:
        List of tensors, zeros where the target does not depend on a source.
    """
    gradients = tape.gradient(
        target, sources, upstream, unconnected_gradients="zero"
    )
    # An embedding, and a map over a single task, give slices instead.
    return [tf.convert_to_tensor(gradient) for gradient in gradients]
