"""Rollouts: what a policy does in tasks, as trajectories of TF-Agents."""

import tensorflow as tf
from tf_agents.drivers import driver
from tf_agents.trajectories import time_step as time_steps
from tf_agents.trajectories import trajectory

from keras_meta import arguments
from keras_meta.rl.choosing_policy import ChoosingPolicy
from keras_meta.rl.rows import row_count


def collect(environment, policy, tasks, policy_state=None, steps=None):
    """Runs a policy for one rollout in each row, whatever rows there are.

    Args:
        environment: A `keras_meta.rl.environments.TaskFamily`.
        policy: A `tf_agents` policy.
        tasks: Nested structure of tensors `[rows, ...]`, a task for each row.
        policy_state: What the policy starts with. `None` (the default) means
            its initial state for as many rows.
        steps: Integer, how many steps are taken in each row. `None` (the
            default) means the horizon of the environment.

    Returns:
        A tuple: a `Trajectory` of tensors `[rows, steps, ...]`, and the last
        state of the policy. Where a rollout ends early another one follows;
        `first_rollout()` tells which steps belong to the first.
    """
    steps = environment.horizon if steps is None else steps
    seed = tf.random.uniform([2], tf.int32.min, tf.int32.max, tf.int32)
    if policy_state is None:
        policy_state = policy.get_initial_state(row_count(tasks))
    start = environment.start(tasks, seed)
    return _run(
        environment, start, environment.advance, policy, policy_state, steps
    )


def collector(environment, policy, rollouts, steps=None):
    """Returns a function that collects in the rows that an environment has.

    It is traced once, however often it is called.

    Args:
        environment: Any `TFEnvironment` of TF-Agents, run by its own steps.
        policy: A `tf_agents` policy.
        rollouts: Integer, the number of rollouts. Where it is more than
            there are rows, one follows the other.
        steps: Integer, the longest a rollout may be. `None` (the default)
            means the `horizon` of the environment.

    Returns:
        A function of the state that the policy starts each rollout with,
        `None` by default, for its initial one. It returns a tuple: a
        `Trajectory` of tensors `[rollouts, steps, ...]`, and the last state
        of the policy, `[batch_size, ...]`.

    Raises:
        ValueError: Where an argument is not as described.
    """
    arguments.check_positive_integer("rollouts", rollouts)
    if steps is None:
        steps = getattr(environment, "horizon", None)
    if steps is None:
        raise ValueError(
            "An environment without a `horizon` must be run for a number of "
            f"steps. Received: {environment!r} and steps=None. Pass the "
            "longest a rollout may be as `steps=`."
        )
    arguments.check_positive_integer(
        "steps", steps, "A rollout must have at least one step."
    )
    rows = environment.batch_size or 1

    @tf.function(autograph=False)
    def run(policy_state):
        return _run(
            environment,
            ((), environment.reset()),
            lambda carry, action: (carry, environment.step(action)),
            policy,
            policy_state,
            steps,
        )

    def collect(policy_state=None):
        if policy_state is None:
            policy_state = policy.get_initial_state(rows)
        runs = [run(policy_state) for _ in range(-(-rollouts // rows))]
        experience = tf.nest.map_structure(
            lambda *leaves: tf.concat(leaves, axis=0)[:rollouts],
            *[experience for experience, _ in runs],
        )
        return experience, runs[-1][1]

    return collect


def _run(environment, start, advance, policy, policy_state, steps):
    carry, time_step = start
    arrays = tf.nest.map_structure(
        lambda leaf: tf.TensorArray(leaf.dtype, steps), policy.trajectory_spec
    )

    # Drawn out here: with a global seed, TensorFlow gives random operations in
    # loops that are alike the same seeds, and rollouts before and after an
    # inner step would have the same noise. Policies of TF-Agents take no such
    # seed.
    own = isinstance(policy, ChoosingPolicy)
    noise = tf.random.uniform([2], tf.int32.min, tf.int32.max, tf.int32)

    def body(number, carry, time_step, policy_state, arrays):
        seed = noise + tf.stack([0, number]) if own else None
        decision = policy.action(time_step, policy_state, seed)
        carry, after = advance(carry, decision.action)
        transition = trajectory.from_transition(time_step, decision, after)
        arrays = tf.nest.map_structure(
            lambda array, leaf: array.write(number, leaf), arrays, transition
        )
        return number + 1, carry, after, decision.state, arrays

    _, _, _, policy_state, arrays = tf.while_loop(
        lambda number, *_: number < steps,
        body,
        (0, carry, time_step, policy_state, arrays),
        parallel_iterations=1,
        maximum_iterations=steps,
    )
    collected = tf.nest.map_structure(_by_rows, arrays)
    reward = _checked(collected.reward, environment)
    return collected._replace(reward=reward), policy_state


def _by_rows(array):
    stacked = array.stack()
    axes = range(2, stacked.shape.rank)
    return tf.stop_gradient(tf.transpose(stacked, [1, 0, *axes]))


def _checked(reward, environment):
    return tf.debugging.check_numerics(
        reward,
        "The rewards of an environment must be finite. Received: NaN or Inf "
        f"from {type(environment).__name__}. Look at what it returns for the "
        "actions of the policy, which may be out of bounds",
    )


def from_parts(observation, action, reward, last):
    """Makes a trajectory of what was seen, done and got.

    Args:
        observation: Nested structure of tensors `[rows, steps, ...]`.
        action: Tensor `[rows, steps, ...]`.
        reward: Float tensor `[rows, steps]`.
        last: Tensor `[rows, steps]`, 1 where a step ends a rollout. What
            follows it in a row does not count.

    Returns:
        A TF-Agents `Trajectory`.
    """
    ends = tf.cast(last, tf.bool)
    over = tf.cumsum(tf.cast(ends, tf.int32), axis=1, exclusive=True) > 0
    mid = tf.fill(tf.shape(ends), time_steps.StepType.MID)
    return trajectory.Trajectory(
        step_type=tf.where(over, time_steps.StepType.LAST, mid),
        observation=observation,
        action=action,
        policy_info=(),
        next_step_type=tf.where(ends, time_steps.StepType.LAST, mid),
        reward=reward,
        discount=tf.ones_like(reward),
    )


def first_rollout(experience):
    """Tells which steps belong to the first rollout of each row.

    Args:
        experience: A `Trajectory` of tensors `[rows, steps, ...]`.

    Returns:
        Float tensor `[rows, steps]`, 1 until the first rollout ends, and 0
        after that.
    """
    ended = tf.equal(experience.step_type, time_steps.StepType.LAST)
    before = tf.cumsum(tf.cast(ended, tf.int32), axis=1)
    return tf.cast(tf.equal(before, 0), tf.float32)


def first_returns(experience):
    """Returns what each row's first rollout got in all, `[rows]`.

    Args:
        experience: A `Trajectory` of tensors `[rows, steps, ...]`.

    Returns:
        Float tensor `[rows]`, the sums of the rewards.
    """
    counted = first_rollout(experience)
    return tf.reduce_sum(experience.reward * counted, axis=1)


class RolloutDriver(driver.Driver):
    """A driver of TF-Agents that runs a policy in all rows at once.

    Unlike the drivers that come with TF-Agents it returns what happened,
    all rollouts of the same length, and needs no replay buffer.

    Args:
        environment: A `keras_meta.rl.environments.TaskFamily`.
        policy: A `tf_agents` policy, such as the `collect_policy` of an
            agent.
        steps: Integer, how many steps are taken in each row. `None` (the
            default) means the horizon of the environment.
        observers: Optional list of functions, each of which gets the whole
            `Trajectory`, such as `replay_buffer.add_batch`.

    Raises:
        ValueError: Where `steps` is less than one.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    policy = tf_agents.policies.random_tf_policy.RandomTFPolicy(
        environment.time_step_spec(), environment.action_spec()
    )
    driver = keras_meta.rl.RolloutDriver(environment, policy)
    goals = environment.sample_tasks(20)
    experience, _ = driver.run(goals)  # [20, 100, ...]
    ```
    """

    def __init__(self, environment, policy, steps=None, observers=None):
        steps = environment.horizon if steps is None else steps
        arguments.check_positive_integer(
            "steps", steps, "A rollout must have at least one step."
        )
        super().__init__(environment, policy, observers)
        self.steps = int(steps)

    def run(self, tasks, policy_state=None):
        """Runs the policy for one rollout in each task.

        Args:
            tasks: Nested structure of tensors `[rows, ...]`.
            policy_state: What the policy starts with; `None` (the default)
                means its initial state.

        Returns:
            A tuple: a `Trajectory` of tensors `[rows, steps, ...]`, and the
            last state of the policy.
        """
        experience, policy_state = collect(
            self.env, self.policy, tasks, policy_state, self.steps
        )
        for observer in self.observers:
            observer(experience)
        return experience, policy_state
