import math

import tensorflow as tf


def log_and_sign(gradients, p=10.0):
    """Returns gradients as numbers of about the same size, two for each.

    Gradients differ by orders of magnitude, which networks do not like as
    inputs. From `e^-p` on, a gradient `g` becomes `(log|g| / p, sign(g))`;
    a smaller one becomes `(-1, e^p g)`, which is the same at the switch.

    Args:
        gradients: Tensor `[...]`.
        p: Float above 0, from which size on the logarithm is taken: `e^-p`.

    Returns:
        Tensor `[..., 2]`.

    Reference:
        - [Andrychowicz et al., 2016](https://arxiv.org/abs/1606.04474),
          appendix A
    """
    sizes = tf.abs(gradients)
    large = sizes >= math.exp(-p)
    # The logarithm of zero is never taken, not even by the gradient.
    logs = tf.math.log(tf.where(large, sizes, tf.ones_like(sizes))) / p
    first = tf.where(large, logs, -tf.ones_like(sizes))
    second = tf.where(large, tf.sign(gradients), gradients * math.exp(p))
    return tf.stack([first, second], axis=-1)
