"""All coordinates of all weights in one tensor: one product serves them."""

import tensorflow as tf


def count(tensors):
    """Returns how many numbers the tensors have together."""
    return sum(tensor.shape.num_elements() for tensor in tensors)


def join(tensors, dtype):
    """Returns the numbers of all tensors as one vector.

    Args:
        tensors: List of tensors of known shapes.
        dtype: The dtype of the vector.

    Returns:
        Tensor `[coordinates]`.
    """
    flat = [tf.reshape(tf.cast(tensor, dtype), [-1]) for tensor in tensors]
    return tf.concat(flat, axis=0)


def split(vector, tensors):
    """Undoes `join()`.

    Args:
        vector: Tensor `[coordinates]`, or with more axes of size 1.
        tensors: List of tensors: the shapes and dtypes to give back.

    Returns:
        List of tensors.
    """
    sizes = [tensor.shape.num_elements() for tensor in tensors]
    parts = tf.split(tf.reshape(vector, [sum(sizes)]), sizes)
    return [
        tf.cast(tf.reshape(part, tensor.shape), tensor.dtype)
        for part, tensor in zip(parts, tensors)
    ]
