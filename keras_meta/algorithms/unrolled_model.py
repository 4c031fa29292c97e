import functools

import tensorflow as tf

from keras_meta import arguments
from keras_meta.algorithms.inner_loop_model import InnerLoopModel
from keras_meta.gradients import dense_gradients


class UnrolledModel(InnerLoopModel):
    """An inner-loop model whose outer gradient passes through the inner steps.

    The inner steps are a computation like any other, and the outer gradient
    is taken through it by nested tapes, as a whole or in part. The arguments
    are described where they are used; see `keras_meta.MAML`.
    """

    def __init__(
        self,
        network,
        inner_steps=1,
        inner_learning_rate=None,
        inner_loss=None,
        first_order=False,
        first_order_iterations=0,
        truncation=None,
        recompute=False,
        multi_step_loss_iterations=0,
        **kwargs,
    ):
        super().__init__(
            network, inner_steps, inner_learning_rate, inner_loss, **kwargs
        )
        arguments.check_choice("recompute", recompute, (True, False))
        for name, iterations in (
            ("first_order_iterations", first_order_iterations),
            ("multi_step_loss_iterations", multi_step_loss_iterations),
        ):
            arguments.check_integer_from_zero(name, iterations)
        if truncation is not None:
            arguments.check_positive_integer(
                "truncation", truncation, "For no step use `first_order=True`."
            )
            if truncation > inner_steps:
                raise ValueError(
                    "`truncation` must not be more than `inner_steps`. "
                    f"Received: truncation={truncation} and inner_steps="
                    f"{inner_steps}. For all steps leave it `None`."
                )
        if first_order and (truncation is not None or first_order_iterations):
            raise ValueError(
                "With `first_order=True` no inner step is passed through, "
                "so that `truncation` and `first_order_iterations` must not "
                f"be given. Received: truncation={truncation} and "
                f"first_order_iterations={first_order_iterations}."
            )
        self.first_order = bool(first_order)
        self.first_order_iterations = int(first_order_iterations)
        self.truncation = truncation
        self.recompute = recompute
        self.multi_step_loss_iterations = int(multi_step_loss_iterations)

    def outer_gradient(self, task, weights):
        def compute(first_order, multi_step):
            return self._through_inner_steps(
                task, weights, first_order, multi_step
            )

        def anneal_loss(first_order):
            return self._until(
                self.multi_step_loss_iterations,
                functools.partial(compute, first_order, True),
                functools.partial(compute, first_order, False),
            )

        return self._until(
            self.first_order_iterations,
            functools.partial(anneal_loss, True),
            functools.partial(anneal_loss, self.first_order),
        )

    def _until(self, iterations, early, late):
        """Returns `early()` in the first iterations, and then `late()`."""
        if not iterations:
            return late()
        return tf.cond(self.optimizer.iterations < iterations, early, late)

    def _through_inner_steps(self, task, weights, first_order, multi_step):
        with tf.GradientTape() as outer_tape:
            outer_tape.watch(weights)
            # The inner tapes are in here, one for every inner step.
            adaptation = self._adapt_task(
                task, weights, self.inner_steps, True, first_order
            )
            predictions = self._predict(task, adaptation, -1, True)
            loss = self._loss_after(
                task, adaptation, predictions, weights, multi_step
            )
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = dense_gradients(
            outer_tape, scaled_loss, self._watched(weights)
        )
        return gradients, adaptation, predictions, loss

    def _adapt_task(
        self, task, weights, steps, training, first_order=None, **arguments
    ):
        if first_order is None:
            first_order = self.first_order
        exact_steps = steps if self.truncation is None else self.truncation
        if first_order:
            exact_steps = 0
        return super()._adapt_task(
            task,
            weights,
            steps,
            training,
            constant_steps=max(steps - exact_steps, 0),
            recompute=self.recompute and training,
            **arguments,
        )

    def _loss_after(self, task, adaptation, predictions, weights, multi_step):
        """Returns the query loss after all steps, or a mean over them.

        In the first iteration every step counts the same, and then the last
        one ever more, until it is all. Regularizers are of the shared weights.
        """
        loss = self._query_loss(task, predictions, weights, True)
        if not multi_step:
            return loss
        share = tf.cast(self.optimizer.iterations, loss.dtype)
        share = 1.0 - share / self.multi_step_loss_iterations
        share = share / self.inner_steps
        total = (1.0 - share * (self.inner_steps - 1)) * loss
        for step in range(1, self.inner_steps):
            answers = self._predict(task, adaptation, step, True)
            total += share * self._query_loss(task, answers, weights, True)
        return total

    def _watched(self, weights):
        """Returns what the outer gradient is taken by: the network's weights
        as tensors, and what the update rule learns."""
        tensors = {
            id(variable): weight
            for variable, weight in zip(
                self.network.trainable_variables, weights
            )
        }
        return [
            tensors.get(id(variable), variable.value)
            for variable in self.trainable_variables
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "first_order": self.first_order,
            "first_order_iterations": self.first_order_iterations,
            "truncation": self.truncation,
            "recompute": self.recompute,
            "multi_step_loss_iterations": self.multi_step_loss_iterations,
        }
