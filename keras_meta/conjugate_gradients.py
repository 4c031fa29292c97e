"""Linear systems that are known by their products with vectors alone."""

import tensorflow as tf


def solve(product, right, steps):
    """Solves `product(x) = right` by conjugate gradients.

    Not `tf.linalg.experimental.conjugate_gradient()`, whose loop ends at
    another time for each task: side by side, XLA does not take it. Once the
    system is solved, further steps change nothing.

    Args:
        product: Function of a list of tensors that returns one of the same
            shapes; linear, symmetric and positive definite.
        right: List of tensors.
        steps: Integer, the number of steps.

    Returns:
        List of tensors, the solution.
    """
    solution = [tf.zeros_like(part) for part in right]
    residual = direction = right
    squared = _dot(residual, residual)
    for _ in range(steps):
        image = product(direction)
        length = tf.math.divide_no_nan(squared, _dot(direction, image))
        solution = _add(solution, length, direction)
        residual = _add(residual, -length, image)
        previous, squared = squared, _dot(residual, residual)
        kept = tf.math.divide_no_nan(squared, previous)
        direction = _add(residual, kept, direction)
    return solution


def _dot(one, other):
    return tf.add_n([tf.reduce_sum(a * b) for a, b in zip(one, other)])


def _add(one, factor, other):
    return [a + factor * b for a, b in zip(one, other)]
