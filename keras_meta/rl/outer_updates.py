"""How an outer step follows from the rollouts after adaptation."""

import tensorflow as tf

from keras_meta import arguments
from keras_meta import conjugate_gradients


class OuterUpdate:
    """How an outer step is taken; the base of the classes here.

    A subclass writes `loss()`, and sets `epochs`.

    Example:

    ```python
    class Weighted(keras_meta.rl.outer_updates.OuterUpdate):
        def loss(self, log_ratio, advantage):
            return -tf.exp(log_ratio) * advantage
    ```
    """

    epochs = 1

    def loss(self, log_ratio, advantage):
        """Returns the loss of each action.

        Args:
            log_ratio: Tensor `[actions]`, the logarithm of how much more
                likely the action is than when it was taken.
            advantage: Tensor `[actions]`, how much better it was than
                expected.

        Returns:
            Tensor `[actions]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`loss(log_ratio, advantage)`."
        )

    def apply(self, problem, optimizer):
        """Updates the variables of a problem.

        Args:
            problem: What a `MAMLAgent` optimizes in an outer step.
            optimizer: A `keras.optimizers.Optimizer`.

        Returns:
            A tuple of scalars: the loss and the norm of its gradient, before
            the last epoch.
        """

        def epoch(number, loss, norm):
            del loss, norm
            loss, gradients = problem.loss_and_gradients(problem.values())
            norm = tf.linalg.global_norm(gradients)
            optimizer.apply(gradients, problem.variables)
            return number + 1, loss, norm

        zero = tf.constant(0.0)
        if self.epochs == 1:
            return epoch(0, zero, zero)[1:]
        # In a loop of the graph, so that an epoch is traced once.
        return tf.while_loop(
            lambda number, *_: number < self.epochs,
            epoch,
            (0, zero, zero),
            parallel_iterations=1,
            maximum_iterations=self.epochs,
        )[1:]


class PolicyGradient(OuterUpdate):
    """One step along the policy gradient (REINFORCE).

    Example:

    ```python
    agent = keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        agent.network,
        outer_update=keras_meta.rl.outer_updates.PolicyGradient(),
    )
    ```

    Reference:
        - [Williams, 1992](https://doi.org/10.1007/BF00992696)
    """

    def loss(self, log_ratio, advantage):
        return -log_ratio * advantage


class ClippedSurrogate(OuterUpdate):
    """Several steps, as long as actions keep about their chances (PPO).

    Args:
        clip: Float above 0, by what share a chance may change before it no
            longer counts. Defaults to `0.2`.
        epochs: Integer, the number of steps with the same rollouts. Defaults
            to `5`.

    Example:

    ```python
    agent = keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        agent.network,
        outer_update=keras_meta.rl.outer_updates.ClippedSurrogate(epochs=3),
    )
    ```

    Reference:
        - [Schulman et al., 2017](https://arxiv.org/abs/1707.06347)
    """

    def __init__(self, clip=0.2, epochs=5):
        arguments.check_positive_number("clip", clip)
        arguments.check_positive_integer("epochs", epochs)
        self.clip = float(clip)
        self.epochs = int(epochs)

    def loss(self, log_ratio, advantage):
        ratio = tf.exp(log_ratio)
        clipped = tf.clip_by_value(ratio, 1 - self.clip, 1 + self.clip)
        return -tf.minimum(ratio * advantage, clipped * advantage)


class TrustRegion(OuterUpdate):
    """The largest step within a divergence of the adapted policies (TRPO).

    The natural gradient is found by conjugate gradients, and the step is
    shortened until the loss falls and the divergence is kept. It uses no
    optimizer.

    Args:
        divergence: Float above 0, the largest mean Kullback-Leibler
            divergence. Defaults to `0.01`.
        conjugate_steps: Integer, the steps of conjugate gradients. Defaults
            to `10`.
        damping: Float from 0, added to the diagonal. Defaults to `1e-5`.
        trials: Integer, how often a step is shortened, to 0.8 of it each
            time, before it is given up. Defaults to `15`.

    Example:

    ```python
    agent = keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        agent.network,
        outer_update=keras_meta.rl.outer_updates.TrustRegion(divergence=0.02),
    )
    ```

    Reference:
        - [Schulman et al., 2015](https://arxiv.org/abs/1502.05477)
    """

    def __init__(
        self, divergence=0.01, conjugate_steps=10, damping=1e-5, trials=15
    ):
        arguments.check_positive_number("divergence", divergence)
        arguments.check_positive_integer("conjugate_steps", conjugate_steps)
        arguments.check_number_from_zero("damping", damping)
        arguments.check_positive_integer("trials", trials)
        self.divergence = float(divergence)
        self.conjugate_steps = int(conjugate_steps)
        self.damping = float(damping)
        self.trials = int(trials)

    def loss(self, log_ratio, advantage):
        return -tf.exp(log_ratio) * advantage

    def apply(self, problem, optimizer=None):
        del optimizer
        values = problem.values()
        loss, gradients = problem.loss_and_gradients(values)
        norm = tf.linalg.global_norm(gradients)

        # As functions, so that each is traced once and not at every use.
        @tf.function(autograph=False)
        def product(*vector):
            products = problem.divergence_product(values, list(vector))
            return [
                image + self.damping * part
                for image, part in zip(products, vector)
            ]

        @tf.function(autograph=False)
        def measure(*values):
            return problem.loss_and_divergence(list(values))

        direction = conjugate_gradients.solve(
            lambda vector: product(*vector), gradients, self.conjugate_steps
        )
        curvature = tf.add_n(
            [
                tf.reduce_sum(part * image)
                for part, image in zip(direction, product(*direction))
            ]
        )
        length = tf.sqrt(2.0 * self.divergence / (curvature + 1e-8))

        def at(trial):
            share = length * 0.8 ** tf.cast(trial, tf.float32)
            return [
                value - share * part for value, part in zip(values, direction)
            ]

        def shorten(trial, accepted):
            del accepted
            new_loss, divergence = measure(*at(trial))
            fine = (new_loss < loss) & (divergence <= self.divergence)
            return trial + tf.cast(~fine, tf.int32), fine

        trial, accepted = tf.while_loop(
            lambda trial, accepted: ~accepted & (trial < self.trials),
            shorten,
            (tf.constant(0), tf.constant(False)),
            parallel_iterations=1,
        )
        for variable, old, new in zip(problem.variables, values, at(trial)):
            variable.assign(tf.where(accepted, new, old))
        return loss, norm


BY_NAME = {
    "reinforce": PolicyGradient,
    "ppo": ClippedSurrogate,
    "trpo": TrustRegion,
}


def get(outer_update):
    """Returns an `OuterUpdate` of one, or of its name.

    Args:
        outer_update: An `OuterUpdate`, or `"reinforce"`, `"ppo"`, `"trpo"`.

    Returns:
        An `OuterUpdate`.

    Raises:
        ValueError: Where there is none of that name.

    Example:

    ```python
    update = keras_meta.rl.outer_updates.get("ppo")
    ```
    """
    if isinstance(outer_update, OuterUpdate):
        return outer_update
    arguments.check_choice("outer_update", outer_update, tuple(BY_NAME))
    return BY_NAME[outer_update]()
