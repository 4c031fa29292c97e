import tensorflow as tf


def repeat(count, body, *values):
    """Runs a function some times in a loop of the graph: it is traced once.

    Args:
        count: Integer, or scalar tensor, how often.
        body: Function `(number, *values)` that returns the values after it, a
            tuple. `number` counts from 0.
        *values: Nested structures of tensors, before the first time.

    Returns:
        Tuple of the values after the last time.
    """
    return tf.while_loop(
        lambda number, *_: number < count,
        lambda number, *values: (number + 1, *body(number, *values)),
        (0, *values),
        parallel_iterations=1,
        maximum_iterations=count,
    )[1:]
