import tensorflow as tf


def fresh_weights(weights, count):
    """Draws weights like new ones, in the graph.

    The numbers of each weight are put into another order. Where an
    initializer draws them all alike, that is a fresh draw; constants stay.

    Args:
        weights: List of tensors, the weights of a network as it was built.
        count: Integer, or scalar tensor, how many networks to draw.

    Returns:
        List of tensors `[count, ...]`.
    """
    return [_shuffled(weight, count) for weight in weights]


def _shuffled(weight, count):
    size = weight.shape.num_elements()
    order = tf.argsort(tf.random.uniform([count, size]), axis=1)
    numbers = tf.gather(tf.reshape(weight, [-1]), order)
    return tf.reshape(numbers, [-1, *weight.shape])
