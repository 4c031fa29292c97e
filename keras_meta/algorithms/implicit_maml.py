import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import conjugate_gradients
from keras_meta import masks
from keras_meta.algorithms.inner_loop_model import InnerLoopModel
from keras_meta.gradients import dense_gradients


@keras.saving.register_keras_serializable(package="keras_meta")
class ImplicitMAML(InnerLoopModel):
    """MAML with the implicit gradient (iMAML), whose memory does not grow.

    The inner loop is held near the initialization by a spring, the proximal
    term `strength / 2 * |adapted - initial|^2`. Where it has come to rest, the
    outer gradient depends on the place alone and not on the way there: it
    solves a linear system in the curvature of the inner loss, which is done
    by conjugate gradients. No inner step is remembered, so that there may be
    any number of them, by any rule.

    The gradient is exact where the inner problem and the linear system are
    solved exactly; take enough `inner_steps`, and watch that more of them
    change nothing.

    Args:
        network: A built `keras.Model`, one example in, one prediction out,
            for classification with one output per way.
        inner_steps: Integer, the number of inner steps in training. Defaults
            to `16`.
        inner_learning_rate: Float, the rate of the inner steps. `None` means
            `0.01`, unless an `update_rule` is given.
        inner_loss: The loss of the inner steps, see `keras_meta.MAML`; the
            proximal term comes on top.
        proximal_strength: Float above 0, the strength of the spring. Defaults
            to `2.0`.
        conjugate_gradient_steps: Integer, the most steps that the linear
            system is given. Defaults to `5`.
        damping: Float of 0 or more, added to the strength in the linear
            system alone, where few steps or a curvature that is not positive
            make it unstable. The larger, the nearer is the outer gradient to
            one of first order. Defaults to `0.0`.
        evaluation_steps: Integer, the number of inner steps in `evaluate()`,
            `predict()` and `adapt()`. `None` means `inner_steps`.
        update_rule: A `keras_meta.update_rules.UpdateRule` that learns
            nothing. `None` means gradient descent.
        adapts: Which weights adapt; see `keras_meta.MAML`.
        normalization_statistics: `"batch"` (the default), `"support"` or
            `"frozen"`; see `keras_meta.MAML`.
        task_mapping: `"vectorized"`, `"sequential"`, or `"auto"` (the
            default): how the tasks of a meta-batch are run.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where the network is not built, has nothing to
            adapt, or another argument is not as described.

    Example:

    ```python
    model = keras_meta.ImplicitMAML(
        keras_meta.backbones.mlp(hidden_units=(40, 40)),
        inner_steps=16,
        inner_learning_rate=0.05,
        proximal_strength=0.5,
    )
    model.compile(optimizer="adam", loss="mse")
    model.fit(
        keras_meta.episodes.sinusoids(shots=10), steps_per_epoch=100, epochs=2
    )
    ```

    Reference:
        - [Rajeswaran et al., 2019](https://arxiv.org/abs/1909.04630)
    """

    rolls_steps = True

    def __init__(
        self,
        network,
        inner_steps=16,
        inner_learning_rate=None,
        inner_loss=None,
        proximal_strength=2.0,
        conjugate_gradient_steps=5,
        damping=0.0,
        evaluation_steps=None,
        update_rule=None,
        adapts="all",
        normalization_statistics="batch",
        task_mapping="auto",
        **kwargs,
    ):
        arguments.check_positive_number("proximal_strength", proximal_strength)
        arguments.check_positive_integer(
            "conjugate_gradient_steps", conjugate_gradient_steps
        )
        arguments.check_number_from_zero("damping", damping)
        arguments.check_choice(
            "normalization_statistics",
            normalization_statistics,
            ("batch", "support", "frozen"),
        )
        super().__init__(
            network,
            inner_steps=inner_steps,
            inner_learning_rate=inner_learning_rate,
            inner_loss=inner_loss,
            evaluation_steps=evaluation_steps,
            update_rule=update_rule,
            adapts=adapts,
            normalization_statistics=normalization_statistics,
            task_mapping=task_mapping,
            **kwargs,
        )
        if self.update_rule.trainable_variables:
            raise ValueError(
                "`update_rule` must have nothing to learn: where the inner "
                "loop ends does not depend on how it got there. Received: "
                f"update_rule={update_rule!r}. Use `keras_meta.MAML`."
            )
        self.proximal_strength = float(proximal_strength)
        self.conjugate_gradient_steps = int(conjugate_gradient_steps)
        self.damping = float(damping)

    def outer_gradient(self, task, weights):
        # No tape is around the inner loop: its steps are forgotten.
        adaptation = self._adapt_task(task, weights, self.inner_steps, True)
        adapted = [tf.identity(w) for w in adaptation.weights_per_step[-1]]
        adaptation.weights_per_step[-1] = adapted
        with tf.GradientTape() as outer_tape:
            outer_tape.watch([weights, adapted])
            predictions = self._predict(task, adaptation, -1, True)
            loss = self._query_loss(task, predictions, weights, True)
            scaled_loss = self.optimizer.scale_loss(loss)
        # The first are those of regularizers, which are of shared weights.
        both = dense_gradients(outer_tape, scaled_loss, [*weights, *adapted])
        direct, by_adapted = both[: len(weights)], both[len(weights) :]
        implicit = self._implicit_gradient(task, adapted, by_adapted)
        gradients = [one + other for one, other in zip(direct, implicit)]
        return gradients, adaptation, predictions, loss

    def _implicit_gradient(self, task, adapted, by_adapted):
        """Turns the gradient by adapted weights into one by shared weights.

        At rest, the inner gradient and the spring cancel out. Differentiated,
        that gives the Jacobian of the adapted weights by the initial ones,
        the inverse of `1 + H / strength`, with the curvature `H`.
        """
        strength = self.proximal_strength + self.damping
        moving = masks.chosen(adapted, self._adapting)

        # Products with the curvature are gradients of the inner gradient,
        # which is computed once.
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(adapted)
            with tf.GradientTape() as inner_tape:
                inner_tape.watch(moving)
                support_loss = self._loss_on_support(
                    task, adapted, self._task_state(task), training=True
                )
            inner_gradient = dense_gradients(inner_tape, support_loss, moving)

        def curvature(vector, by):
            return dense_gradients(tape, inner_gradient, by, vector)

        def system(vector):
            products = curvature(vector, moving)
            return [v + p / strength for v, p in zip(vector, products)]

        right = masks.chosen(by_adapted, self._adapting)
        solution = conjugate_gradients.solve(
            system, right, self.conjugate_gradient_steps
        )
        by_shared = curvature(solution, adapted)
        gradients = [
            direct - by_other / strength
            for direct, by_other in zip(by_adapted, by_shared)
        ]
        return masks.with_chosen(gradients, self._adapting, solution)

    def _adapt_task(self, task, weights, steps, training, **arguments):
        return super()._adapt_task(
            task,
            weights,
            steps,
            training,
            proximity=self.proximal_strength,
            **arguments,
        )

    def get_config(self):
        config = super().get_config()
        # There is no choice.
        config.pop("normalization_scales")
        return {
            **config,
            "proximal_strength": self.proximal_strength,
            "conjugate_gradient_steps": self.conjugate_gradient_steps,
            "damping": self.damping,
        }
