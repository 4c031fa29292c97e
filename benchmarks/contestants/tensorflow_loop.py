"""The training loop of the contestants that write one in TensorFlow."""

import keras
import numpy as np
import tensorflow as tf

from contestants import cases
from contestants import clock


class Loop:
    """Takes outer steps in one `tf.function`, as `fit()` does.

    Args:
        case: Dictionary, the case.
        variables: List of variables, the weights.
        loss_and_gradients: Function of a meta-batch.
        steps_per_execution: Integer, the outer steps of one call of the graph.
        jit_compile: Boolean, whether a step is compiled by XLA.
    """

    def __init__(
        self,
        case,
        variables,
        loss_and_gradients,
        steps_per_execution=1,
        jit_compile=False,
    ):
        self.granularity = steps_per_execution
        self.optimizer = keras.optimizers.Adam(0.001)
        self.optimizer.build(variables)
        batches = tf.data.Dataset.from_tensor_slices(cases.data(case))
        self.first = iter(batches.take(1))
        self.batches = iter(batches.repeat())

        @tf.function(autograph=False, jit_compile=jit_compile)
        def step(batch):
            loss, gradients = loss_and_gradients(batch)
            self.optimizer.apply_gradients(zip(gradients, variables))
            return loss

        @tf.function
        def train(iterator, steps):
            loss = step(next(iterator))
            for _ in tf.range(steps - 1):
                loss = step(next(iterator))
            return loss

        self.train = train if steps_per_execution > 1 else None
        self.step = tf.function(lambda iterator: step(next(iterator)))

    def check(self):
        if self.train is None:
            loss = self.step(self.first)
        else:
            loss = self.train(self.first, tf.constant(1))
        # The first momentum of Adam is a tenth of the gradient.
        gradients = [np.asarray(m) / 0.1 for m in self.optimizer._momentums]
        return float(loss), gradients

    def run(self, steps, blocks):
        count = tf.constant(self.granularity)

        def step():
            if self.train is None:
                return self.step(self.batches)
            return self.train(self.batches, count)

        return clock.durations(
            step, steps // self.granularity, blocks, lambda loss: loss.numpy()
        )
