"""Ridge regression in closed form, for many small problems at once."""

import tensorflow as tf

# What is added to the diagonal, as a part of its sum, so that no problem is
# singular in the precision of float32. (What a decomposition is wrong by grows
# with the size; the sum is the same whatever is padded, and in the dual.)
_RELATIVE = 1e-6


def solve(x, y, weight, strength):
    """Returns the solutions of weighted ridge regressions.

    Each minimizes `sum_i weight_i |x_i w - y_i|^2 + strength |w|^2`. Where
    there are fewer examples than features, the dual problem is solved, of the
    size of the examples.

    Args:
        x: Tensor `[tasks, examples, features]`.
        y: Tensor `[tasks, examples, outputs]`.
        weight: Tensor `[tasks, examples]`, 0 where padded.
        strength: Float, or scalar tensor, above 0.

    Returns:
        Tensor `[tasks, features, outputs]`.
    """
    root = tf.sqrt(weight)[..., None]
    x, y = root * x, root * y
    examples, features = x.shape[1:]
    if examples is not None and examples > features:
        gram = tf.matmul(x, x, transpose_a=True)
        return _solve(gram, tf.matmul(x, y, transpose_a=True), strength)
    gram = tf.matmul(x, x, transpose_b=True)
    return tf.matmul(x, _solve(gram, y, strength), transpose_a=True)


def _solve(gram, right, strength):
    diagonal = tf.linalg.diag_part(gram)
    total = tf.reduce_sum(diagonal, axis=-1, keepdims=True)
    # No gradient: it is there for the precision, and not part of the problem.
    added = strength + tf.stop_gradient(_RELATIVE * total)
    gram = tf.linalg.set_diag(gram, diagonal + added)
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(gram), right)
