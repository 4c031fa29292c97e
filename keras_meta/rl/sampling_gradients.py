"""How the outer gradient counts that inner steps learn from what was drawn.

The policy before adaptation decides which rollouts an inner step learns from.
The gradient through the inner step alone, which is that of MAML, takes them
for given.
"""

import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl import outer_updates
from keras_meta.rl.advantages import mean


class SamplingGradient:
    """Rollouts of inner steps are taken for given, as in MAML; the base.

    A subclass writes `inner_loss()`, which inner steps go down and the outer
    gradient passes through, or `loss()`, which is added to the outer loss.

    Example:

    ```python
    class Cautious(keras_meta.rl.sampling_gradients.SamplingGradient):
        def loss(self, stages, outer_update):
            return tf.add_n(
                [tf.reduce_mean(stage.divergence) for stage in stages]
            )
    ```
    """

    def inner_loss(self, log_ratio, advantage):
        """Returns the loss of each action in an inner step.

        Args:
            log_ratio: Tensor `[actions]`, the logarithm of how much more
                likely the action is than when it was taken: 0, but for its
                gradient.
            advantage: Tensor `[actions]`, how much better it was than
                expected.

        Returns:
            Tensor `[actions]`.
        """
        return -log_ratio * advantage

    def loss(self, stages, outer_update):
        """Returns what is added to the outer loss of a task.

        Args:
            stages: List of what was collected for each inner step, with the
                attributes `log_ratio`, `divergence`, `advantage`, `weight`
                (`[actions]`) and `credit`, of what came of it.
            outer_update: A `keras_meta.rl.outer_updates.OuterUpdate`.

        Returns:
            Scalar.
        """
        del stages, outer_update
        return 0.0


class EMAML(SamplingGradient):
    """Credits each inner step's rollouts with what came of them (E-MAML).

    What the policies got after adaptation, compared with those of the other
    tasks, is credited to all actions that the inner steps learned from. That
    makes the outer gradient the true one of what is got after inner steps on
    so many rollouts, and lets the policy learn to explore. It is a sum over
    many actions, and by that much noisier: take many tasks, or a smaller
    weight.

    Args:
        weight: Float above 0, how much the credit counts; 1 makes the
            gradient the true one. Defaults to `1.0`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    agent = keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        agent.network,
        sampling_gradient=keras_meta.rl.sampling_gradients.EMAML(weight=0.1),
    )
    ```

    Reference:
        - [Stadie et al., 2018](https://arxiv.org/abs/1803.01118)
        - [Al-Shedivat et al., 2018](https://arxiv.org/abs/1710.03641)
    """

    def __init__(self, weight=1.0):
        arguments.check_positive_number("weight", weight)
        self.weight = float(weight)

    def loss(self, stages, outer_update):
        losses = [
            tf.reduce_sum(
                outer_update.loss(stage.log_ratio, stage.credit) * stage.weight
            )
            for stage in stages
        ]
        return self.weight * tf.add_n(losses)


class ProMP(SamplingGradient):
    """Inner steps go down a likelihood ratio, as in ProMP.

    The first derivatives are those of the policy gradient, and so the inner
    steps are the same. But the second derivatives, which the outer gradient
    takes, count that the chances of the actions change with the policy. The
    gradient is that of what is got after an inner step on very many rollouts,
    and is hardly noisier than that of MAML.

    Steps with the same rollouts are kept near to the policies that collected
    them: that before adaptation by its divergence, here, and those after by
    the outer update.

    Args:
        divergence_weight: Float from 0, how much the divergence counts of the
            policies that collected for the inner steps. It has no slope in
            the first step with the same rollouts. Defaults to `0.0005`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    agent = keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        agent.network,
        sampling_gradient=keras_meta.rl.sampling_gradients.ProMP(0.01),
    )
    ```

    Reference:
        - [Rothfuss et al., 2019](https://arxiv.org/abs/1810.06784)
    """

    def __init__(self, divergence_weight=0.0005):
        arguments.check_number_from_zero("divergence_weight", divergence_weight)
        self.divergence_weight = float(divergence_weight)

    def inner_loss(self, log_ratio, advantage):
        return -tf.exp(log_ratio) * advantage

    def loss(self, stages, outer_update):
        del outer_update
        divergences = [mean(stage.divergence, stage.weight) for stage in stages]
        return self.divergence_weight * tf.add_n(divergences) / len(stages)


BY_NAME = {"e_maml": EMAML, "promp": ProMP}


def get(sampling_gradient):
    """Returns a `SamplingGradient` of one, or of its name.

    Args:
        sampling_gradient: A `SamplingGradient`; `"e_maml"` or `"promp"`; or
            `None`, for that of MAML.

    Returns:
        A `SamplingGradient`.

    Raises:
        ValueError: Where there is none of that name.

    Example:

    ```python
    gradient = keras_meta.rl.sampling_gradients.get("promp")
    ```
    """
    if isinstance(sampling_gradient, SamplingGradient):
        return sampling_gradient
    arguments.check_choice(
        "sampling_gradient", sampling_gradient, (None, *BY_NAME)
    )
    return BY_NAME.get(sampling_gradient, SamplingGradient)()


def check(sampling_gradient, outer_update, first_order):
    """Raises where a sampling gradient means nothing.

    Args:
        sampling_gradient: A `SamplingGradient`.
        outer_update: A `keras_meta.rl.outer_updates.OuterUpdate`.
        first_order: Boolean, whether inner gradients count as constants.

    Raises:
        ValueError: Where they do not go together.

    Example:

    ```python
    keras_meta.rl.sampling_gradients.check(
        keras_meta.rl.sampling_gradients.ProMP(),
        keras_meta.rl.outer_updates.ClippedSurrogate(),
        first_order=False,
    )
    ```
    """
    name = type(sampling_gradient).__name__
    if isinstance(outer_update, outer_updates.TrustRegion) and isinstance(
        sampling_gradient, (EMAML, ProMP)
    ):
        raise ValueError(
            "`outer_update` must be 'ppo' or 'reinforce' where there is a "
            "`sampling_gradient`. Received: outer_update='trpo' and "
            f"sampling_gradient={name}. A trust region knows nothing of the "
            "policy before adaptation, which that gradient moves."
        )
    if first_order and isinstance(sampling_gradient, ProMP):
        raise ValueError(
            "`first_order` must be False with `sampling_gradient='promp'`, "
            "which is about the second derivatives. Received: "
            "first_order=True. Leave one of them at its default."
        )
