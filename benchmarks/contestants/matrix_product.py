"""What the machine can do: a large matrix product, in TensorFlow."""

import tensorflow as tf

from contestants import clock

SIZE = 2048


def make(case, folder):
    return MatrixProduct()


class MatrixProduct:
    granularity = 1
    operations = 2 * SIZE**3

    def __init__(self):
        one, other = (tf.random.normal([SIZE, SIZE]) for _ in range(2))
        self.product = tf.function(lambda: tf.linalg.matmul(one, other)[0, 0])

    def check(self):
        self.product().numpy()
        return 0.0, []

    def run(self, steps, blocks):
        return clock.durations(self.check, steps, blocks)
