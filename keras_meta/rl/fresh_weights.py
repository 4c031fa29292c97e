import tensorflow as tf


def fresh_weights(weights, count):
    """Returns weights as if they were initialized anew, in the graph.

    The numbers of each weight are put in a random order. For initializers that
    draw all numbers of a weight alike, as nearly all do, that is as good as to
    draw them again; what starts with equal numbers, such as biases of zeros,
    stays as it is.

    Args:
        weights: List of tensors, as a network was initialized.
        count: Integer, how many sets of weights.

    Returns:
        List of tensors `[count, ...]`.
    """
    fresh = []
    for weight in weights:
        numbers = tf.reshape(weight, [-1])
        order = tf.argsort(tf.random.uniform([count, numbers.shape[0]]), axis=1)
        shuffled = tf.gather(numbers, order)
        fresh.append(tf.reshape(shuffled, [count, *weight.shape]))
    return fresh
