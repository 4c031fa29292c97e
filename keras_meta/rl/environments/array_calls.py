import weakref

import numpy as np
import tensorflow as tf


def call(method, inputs, dtypes):
    """Calls a method that computes with arrays, in a graph or at once.

    Called at once, its errors stay those of Python. In a graph, TensorFlow
    makes errors of its own of them, with the same words.

    Args:
        method: A bound method from arrays to a list of arrays. A graph does
            not keep alive what it is a method of: graphs live long, and
            processes of workers shall not live as long as they do.
        inputs: List of tensors.
        dtypes: List of dtypes, of what is returned.

    Returns:
        List of tensors.
    """
    if tf.executing_eagerly():
        outputs = method(*[np.asarray(tensor) for tensor in inputs])
        return [tf.constant(output) for output in outputs]
    reference = weakref.WeakMethod(method)

    def compute(*arrays):
        method = reference()
        if method is None:
            raise RuntimeError(
                "A family must be kept as long as it is stepped. Received: a "
                "graph that has outlived the family whose steps it takes."
            )
        return method(*arrays)

    return tf.numpy_function(compute, inputs, dtypes)
