import collections

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as time_steps

from keras_meta import arguments
from keras_meta.rl.environments.task_family import TaskFamily
from keras_meta.rl.rollouts import first_rollout

# What a row is between two steps: what it is in the environment within, and how
# many rollouts of the trial are over.
TrialRows = collections.namedtuple("TrialRows", ["inner", "done", "step_type"])


class Trials(TaskFamily):
    """Several rollouts in one task, one after the other, as one long one.

    An agent with a memory can use in later rollouts of a trial what it found
    out in the first. To that end an observation is joined with the last
    action (one-hot where it is an integer), the last reward, and whether the
    last step ended a rollout. To TF-Agents, the trial is what an episode of
    the environment is: its memory is cleared between trials and not within.

    Args:
        environment: A `TaskFamily`, whose tasks these are.
        rollouts: Integer of 1 or more, the rollouts of a trial.
        batch_size: Integer, the rows of `reset()` and `step()`. `None` (the
            default) means those of the environment.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    bandits = keras_meta.rl.environments.Bandits(arms=5, horizon=1)
    trials = keras_meta.rl.environments.Trials(bandits, rollouts=10)
    trials.observation_spec().shape  # [8]: 1 + 5 + 1 + 1
    ```

    Reference:
        - [Duan et al., 2016](https://arxiv.org/abs/1611.02779)
        - [Wang et al., 2016](https://arxiv.org/abs/1611.05763)
    """

    def __init__(self, environment, rollouts, batch_size=None):
        if not isinstance(environment, TaskFamily):
            raise TypeError(
                "`environment` must be a `TaskFamily`. Received: environment="
                f"{environment!r}."
            )
        arguments.check_positive_integer("rollouts", rollouts)
        self.environment = environment
        self.rollouts = int(rollouts)
        action = environment.action_spec()
        self._choices = None
        if action.dtype.is_integer:
            lowest, highest = np.min(action.minimum), np.max(action.maximum)
            self._lowest = int(lowest)
            self._choices = int(highest) - int(lowest) + 1
        sizes = [
            leaf.shape.num_elements()
            for leaf in tf.nest.flatten(environment.observation_spec())
        ]
        action_size = action.shape.num_elements() * (self._choices or 1)
        super().__init__(
            tf.TensorSpec([sum(sizes) + action_size + 2], tf.float32),
            action,
            environment.task_spec,
            horizon=self.rollouts * environment.horizon,
            batch_size=(
                environment.batch_size if batch_size is None else batch_size
            ),
            seed=environment.seed,
        )

    def sample_tasks(self, count, split="train", seed=0):
        return self.environment.sample_tasks(count, split, seed)

    def start(self, tasks, seed):
        inner, time_step = self.environment.start(tasks, seed)
        rows = tf.shape(time_step.reward)[0]
        count = time_step.reward.shape[0] or rows
        carry = TrialRows(
            inner, tf.zeros([count], tf.int32), time_step.step_type
        )
        action = self.action_spec()
        nothing = tf.zeros([count, *action.shape], action.dtype)
        first = tf.fill([count], True)
        return carry, self._join(time_step, nothing, first, first)

    def advance(self, carry, actions):
        over = tf.equal(carry.step_type, time_steps.StepType.LAST)
        inner, time_step = self.environment.advance(carry.inner, actions)
        ended = tf.equal(time_step.step_type, time_steps.StepType.LAST)
        inner, time_step = self.environment.restart(
            inner, time_step, ended | over
        )
        done = tf.where(over, 0, carry.done + tf.cast(ended, tf.int32))
        step_type = tf.where(
            over,
            time_steps.StepType.FIRST,
            tf.where(
                done >= self.rollouts,
                time_steps.StepType.LAST,
                time_steps.StepType.MID,
            ),
        )
        time_step = time_step._replace(
            step_type=step_type,
            reward=tf.where(over, 0.0, time_step.reward),
            # The end of a trial is the end: nothing follows that counts.
            discount=tf.where(done >= self.rollouts, 0.0, 1.0),
        )
        carry = TrialRows(inner, done, step_type)
        return carry, self._join(time_step, actions, ended, over)

    def restart(self, carry, time_step, rows):
        raise NotImplementedError(
            "A trial is not part of another one. Received: a `Trials` within "
            "a `Trials`."
        )

    def _join(self, time_step, actions, ended, first):
        """Joins observations with what was before; zeros in a first step."""
        count = tf.shape(time_step.reward)[0]
        if self._choices:
            actions = tf.one_hot(actions - self._lowest, self._choices)
        before = tf.concat(
            [
                tf.reshape(actions, [count, -1]),
                time_step.reward[:, None],
                tf.cast(ended, tf.float32)[:, None],
            ],
            axis=-1,
        )
        before = tf.where(first[:, None], tf.zeros_like(before), before)
        parts = [
            tf.reshape(tf.cast(leaf, tf.float32), [count, -1])
            for leaf in tf.nest.flatten(time_step.observation)
        ]
        joined = tf.concat([*parts, before], axis=-1)
        size = self.observation_spec().shape
        return time_step._replace(
            observation=tf.ensure_shape(joined, [None, *size])
        )


def returns_by_rollout(experience, rollouts):
    """Returns what each rollout of a trial got, `[rows, rollouts]`.

    Args:
        experience: A `Trajectory` from `Trials`, `[rows, steps, ...]`.
        rollouts: Integer, the rollouts of a trial.

    Returns:
        Float tensor `[rows, rollouts]`.
    """
    # The last number of an observation tells that a rollout has ended before.
    number = tf.cumsum(experience.observation[..., -1], axis=1)
    belongs = tf.one_hot(tf.cast(number, tf.int32), rollouts)
    # To TF-Agents, a trial is what a rollout is.
    reward = experience.reward * first_rollout(experience)
    return tf.reduce_sum(reward[..., None] * belongs, axis=1)
