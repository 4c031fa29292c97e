import collections
import zlib

import numpy as np
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as time_steps

from keras_meta import arguments
from keras_meta.rl.rows import choose_rows
from keras_meta.rl.rows import row_count

SPLITS = ("train", "validation", "test")


class TaskFamily(tf_environment.TFEnvironment):
    """A distribution over environments, and a batch of them.

    Each row of the batch is an environment with a task of its own. As an
    environment of TF-Agents (`reset()`, `step()`) it serves any agent and
    driver. Meta-learners use the same dynamics as pure functions of tensors,
    `start()` and `advance()`, with as many rows as there are tasks.

    Tasks are drawn by `sample_tasks()` from a seed. Those of the splits
    `"train"`, `"validation"` and `"test"` do not overlap.

    A subclass says how tasks are drawn and how rows move on: see
    `GraphTaskFamily` for what is written in TensorFlow, and `GymnasiumTasks`
    for environments of gymnasium.

    Args:
        observation_spec: The specification of one observation.
        action_spec: The specification of one action.
        task_spec: Nested structure of `tf.TensorSpec`, one task.
        horizon: Integer of 1 or more, the number of steps of a rollout.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.Bandits(arms=5, batch_size=2)
    tasks = environment.sample_tasks(10, split="test")  # [10, 5]
    environment.set_tasks(tasks[:2])
    time_step = environment.reset()
    time_step = environment.step([0, 4])
    ```
    """

    def __init__(
        self,
        observation_spec,
        action_spec,
        task_spec,
        horizon,
        batch_size=1,
        seed=0,
    ):
        arguments.check_positive_integer(
            "horizon", horizon, "A rollout must have at least one step."
        )
        arguments.check_positive_integer("batch_size", batch_size)
        arguments.check_integer_from_zero("seed", seed)
        super().__init__(
            time_steps.time_step_spec(observation_spec),
            action_spec,
            int(batch_size),
        )
        self.task_spec = task_spec
        self.horizon = int(horizon)
        self.seed = int(seed)
        self._drawn = 0
        self._generator = tf.random.Generator.from_seed(seed)
        # What `step()` goes on from; made with the first use, since a
        # meta-learner needs no rows but its own.
        self._tasks = self._carry = self._time_step = None

    def draw_tasks(self, count, seed, split):
        """Draws tasks; to be written by a subclass, in TensorFlow.

        Args:
            count: Integer, how many.
            seed: Tensor `[2]` of int32, for the stateless random functions
                of TensorFlow. It differs from split to split.
            split: `"train"`, `"validation"` or `"test"`, where that matters:
                where tasks are so few that those of two splits could be
                alike by chance.

        Returns:
            Nested structure of tensors `[count, ...]`, as in `task_spec`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`draw_tasks(count, seed, split)`."
        )

    def start(self, tasks, seed):
        """Begins a rollout in each task.

        Args:
            tasks: Nested structure of tensors `[rows, ...]`.
            seed: Tensor `[2]` of int32, decides all that is random.

        Returns:
            A tuple: the carry, for `advance()`, and a TF-Agents `TimeStep`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `start(tasks, seed)`."
        )

    def advance(self, carry, actions):
        """Takes one step in each row; one that has ended begins anew.

        Args:
            carry: What `start()` or the last `advance()` returned.
            actions: Tensor `[rows, ...]`.

        Returns:
            A tuple: the carry, and a TF-Agents `TimeStep`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `advance(carry, actions)`."
        )

    def restart(self, carry, time_step, rows):
        """Begins a new rollout in some rows, without a step.

        Args:
            carry: What `advance()` returned.
            time_step: The `TimeStep` that `advance()` returned.
            rows: Bool tensor `[rows]`, which ones.

        Returns:
            A tuple: the carry, and the time step, in which these rows show
            the first observation of their new rollout.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`restart(carry, time_step, rows)`."
        )

    def sample_tasks(self, count, split="train", seed=0):
        """Draws tasks; the same arguments always give the same ones.

        Args:
            count: Integer of 1 or more.
            split: `"train"` (the default), `"validation"` or `"test"`.
            seed: Integer, to draw others; or a scalar tensor.

        Returns:
            Nested structure of tensors `[count, ...]`.

        Raises:
            ValueError: Where an argument is not as described.
        """
        arguments.check_positive_integer("count", count)
        arguments.check_choice("split", split, SPLITS)
        # By name, so that each family has tasks of its own.
        key = zlib.crc32(f"{type(self).__name__} {split}".encode())
        key = tf.constant([self.seed, np.uint32(key).astype(np.int32)])
        key = tf.random.experimental.stateless_fold_in(key, seed)
        return self._checked(self.draw_tasks(count, key, split), count)

    def _checked(self, tasks, count):
        """Raises where `draw_tasks()` does not give what `task_spec` says."""
        expected = tf.nest.map_structure(
            lambda spec: tf.TensorSpec([count, *spec.shape], spec.dtype),
            self.task_spec,
        )
        try:
            fit = tf.nest.map_structure(
                lambda spec, leaf: spec.is_compatible_with(leaf),
                expected,
                tasks,
            )
        except (TypeError, ValueError):
            fit = False
        if not all(tf.nest.flatten(fit)):
            received = tf.nest.map_structure(
                lambda leaf: f"{leaf.dtype.name} {tuple(leaf.shape)}", tasks
            )
            raise ValueError(
                f"`draw_tasks()` of {type(self).__name__} must return tensors "
                f"as its `task_spec` says, here {expected}. Received: "
                f"{received}."
            )
        return tasks

    def sample_task(self, split="train"):
        """Draws one task, another one with each call.

        Args:
            split: `"train"` (the default), `"validation"` or `"test"`.

        Returns:
            Nested structure of tensors, as in `task_spec`.
        """
        self._drawn += 1
        # Apart from the numbers that data sets use.
        tasks = self.sample_tasks(1, split, -self._drawn)
        return tf.nest.map_structure(lambda leaf: leaf[0], tasks)

    def tasks(self, meta_batch_size, split="train", batches=None, seed=0):
        """Returns a data set of meta-batches of tasks, for `fit()`.

        Args:
            meta_batch_size: Integer, the tasks of an outer step.
            split: `"train"` (the default), `"validation"` or `"test"`.
            batches: Integer, the number of meta-batches, the same ones in
                every epoch; or `None` (the default), without end.
            seed: Integer from 0, to draw others.

        Returns:
            A `tf.data.Dataset` of tensors `[meta_batch_size, ...]`.

        Raises:
            ValueError: Where an argument is not as described.

        Example:

        ```python
        environment = keras_meta.rl.environments.PointNavigation()
        goals = next(iter(environment.tasks(meta_batch_size=20)))  # [20, 2]
        ```
        """
        arguments.check_positive_integer("meta_batch_size", meta_batch_size)
        arguments.check_choice("split", split, SPLITS)
        arguments.check_integer_from_zero("seed", seed)
        if batches is not None:
            arguments.check_positive_integer("batches", batches)
        numbers = tf.data.Dataset.range(
            2**31 - 1 if batches is None else batches
        )

        def draw(number):
            key = tf.stack([tf.constant(seed), tf.cast(number, tf.int32)])
            number = tf.random.stateless_uniform([], key, None, None, tf.int32)
            return self.sample_tasks(meta_batch_size, split, number)

        return numbers.map(draw).prefetch(2)

    def set_tasks(self, tasks):
        """Sets the tasks of the rows of `reset()` and `step()`.

        Args:
            tasks: Nested structure of tensors: `[batch_size, ...]`, a task
                for each row, or one task for all.

        Raises:
            ValueError: Where the tasks do not fit `task_spec`.
        """
        tasks = rows_of(self, tasks, self.batch_size)
        self._make_rows()
        _assign(self._tasks, tasks)

    def _make_rows(self):
        if self._tasks is not None:
            return
        with tf.init_scope():
            tasks = self.sample_tasks(self.batch_size)
            self._tasks = _variables(tasks)
            carry, time_step = self.start(tasks, tf.constant([self.seed, 0]))
            self._carry = _variables(carry)
            self._time_step = _variables(time_step)

    def _current_time_step(self):
        self._make_rows()
        return _tensors(self._time_step)

    def _reset(self):
        self._make_rows()
        seed = self._generator.uniform_full_int([2], tf.int32)
        return self._keep(*self.start(_tensors(self._tasks), seed))

    def _step(self, action):
        self._make_rows()
        return self._keep(*self.advance(_tensors(self._carry), action))

    def _keep(self, carry, time_step):
        _assign(self._carry, carry)
        _assign(self._time_step, time_step)
        return time_step


# What a row of a `GraphTaskFamily` is between two steps.
Rows = collections.namedtuple(
    "Rows", ["tasks", "state", "steps", "step_type", "seed"]
)


class GraphTaskFamily(TaskFamily):
    """A task family whose dynamics are written in TensorFlow.

    A subclass writes four functions of all rows at once: `draw_tasks()`,
    `initial_state()`, `transition()` and `observe()`.

    Args:
        observation_spec: The specification of one observation.
        action_spec: The specification of one action.
        task_spec: Nested structure of `tf.TensorSpec`, one task.
        horizon: Integer of 1 or more, the number of steps of a rollout.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    from tf_agents.specs import BoundedTensorSpec

    class Thermostats(keras_meta.rl.environments.GraphTaskFamily):
        # Keep a room at 0; how fast it cools differs from task to task.
        def __init__(self, batch_size=1, seed=0):
            super().__init__(
                tf.TensorSpec([1], tf.float32),
                BoundedTensorSpec([1], tf.float32, -1.0, 1.0),
                task_spec=tf.TensorSpec([1], tf.float32),
                horizon=20,
                batch_size=batch_size,
                seed=seed,
            )

        def draw_tasks(self, count, seed, split):
            return tf.random.stateless_uniform([count, 1], seed, 0.1, 0.9)

        def initial_state(self, tasks, seed):
            return tf.zeros_like(tasks)

        def transition(self, state, actions, tasks, seed):
            state = state - tasks + actions
            reward = -tf.abs(state[:, 0])
            return state, reward, tf.zeros_like(reward, tf.bool)

        def observe(self, state, tasks):
            return state
    ```
    """

    def initial_state(self, tasks, seed):
        """Returns the state in which rollouts begin; hook.

        Args:
            tasks: Nested structure of tensors `[rows, ...]`.
            seed: Tensor `[2]` of int32, for stateless random functions.

        Returns:
            Nested structure of tensors `[rows, ...]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`initial_state(tasks, seed)`."
        )

    def transition(self, state, actions, tasks, seed):
        """Moves all rows by one step; hook.

        Args:
            state: Nested structure of tensors `[rows, ...]`.
            actions: Tensor `[rows, ...]`; real ones may be out of bounds.
            tasks: Nested structure of tensors `[rows, ...]`.
            seed: Tensor `[2]` of int32, for stateless random functions.

        Returns:
            A tuple: the new state, the rewards `[rows]`, and bools `[rows]`,
            whether the rollout ends there (beside the horizon).
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`transition(state, actions, tasks, seed)`."
        )

    def observe(self, state, tasks):
        """Returns what the agent sees of a state; hook.

        Args:
            state: Nested structure of tensors `[rows, ...]`.
            tasks: Nested structure of tensors `[rows, ...]`.

        Returns:
            Nested structure of tensors `[rows, ...]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `observe(state, tasks)`."
        )

    def start(self, tasks, seed):
        count = row_count(tasks)
        state = self.initial_state(tasks, seed)
        rows = Rows(
            tasks,
            state,
            tf.zeros([count], tf.int32),
            tf.fill([count], time_steps.StepType.FIRST),
            seed,
        )
        first = time_steps.TimeStep(
            rows.step_type,
            tf.zeros([count]),
            tf.ones([count]),
            self.observe(state, tasks),
        )
        return rows, first

    def advance(self, carry, actions):
        # Counted up: each number is the beginning of another stream.
        seed = carry.seed + tf.constant([0, 1])
        ended = tf.equal(carry.step_type, time_steps.StepType.LAST)
        state, reward, terminal = self.transition(
            carry.state, actions, carry.tasks, seed
        )
        steps = carry.steps + 1
        step_type = tf.where(
            terminal | (steps >= self.horizon),
            time_steps.StepType.LAST,
            time_steps.StepType.MID,
        )
        moved = Rows(carry.tasks, state, steps, step_type, seed)
        # At the horizon the discount stays 1: nothing has ended there but
        # the rollout.
        time_step = time_steps.TimeStep(
            step_type,
            tf.where(ended, 0.0, reward),
            tf.where(terminal & ~ended, 0.0, 1.0),
            (),
        )
        return self.restart(moved, time_step, ended)

    def restart(self, carry, time_step, rows):
        seed = carry.seed + tf.constant([0, 1])
        state = choose_rows(
            rows, self.initial_state(carry.tasks, seed), carry.state
        )
        step_type = tf.where(rows, time_steps.StepType.FIRST, carry.step_type)
        carry = carry._replace(
            state=state,
            steps=tf.where(rows, 0, carry.steps),
            step_type=step_type,
            seed=seed,
        )
        return carry, time_step._replace(
            step_type=step_type, observation=self.observe(state, carry.tasks)
        )


def rows_of(environment, tasks, rows):
    """Returns one task a row.

    Args:
        environment: A `TaskFamily`.
        tasks: Nested structure of tensors: one task, or `[count, ...]`.
        rows: Integer, a multiple of `count`.

    Returns:
        Nested structure of tensors `[rows, ...]`. Rows of one task stand
        together.

    Raises:
        ValueError: Where the tasks do not fit `task_spec` or the rows.
    """
    spec = environment.task_spec

    def check(condition):
        if not condition:
            shapes = tf.nest.map_structure(
                lambda leaf: str(tuple(np.shape(leaf))), tasks
            )
            raise ValueError(
                "`tasks` must be one task, or as many as rows or a divisor "
                f"of them. Received: tasks of shape {shapes}, where one task "
                f"is {spec}, for {rows} rows. Draw them with "
                "`sample_tasks()`."
            )

    try:
        if not tf.nest.is_nested(spec):
            # Lists are numbers here, and not parts of a structure.
            tasks = tf.convert_to_tensor(tasks, spec.dtype)
        tf.nest.assert_same_structure(tasks, spec)
    except (TypeError, ValueError):
        check(False)

    def repeat(leaf, leaf_spec):
        leaf = tf.convert_to_tensor(leaf, leaf_spec.dtype)
        if leaf.shape.rank == leaf_spec.shape.rank:
            leaf = leaf[None]
        check(leaf.shape[1:].is_compatible_with(leaf_spec.shape))
        count = leaf.shape[0]
        if count is not None:
            check(rows % count == 0)
        return tf.repeat(leaf, rows // tf.shape(leaf)[0], axis=0)

    return tf.nest.map_structure(repeat, tasks, spec)


def bounded(shape, minimum, maximum, dtype=tf.float32, name="action"):
    """Returns the specification of an action with bounds."""
    return tensor_spec.BoundedTensorSpec(shape, dtype, minimum, maximum, name)


def uniform_numbers(count, seed, limits):
    """Draws tasks of several numbers, each of them uniform.

    Args:
        count: Integer, how many tasks.
        seed: Tensor `[2]` of int32.
        limits: Dictionary from names to the lowest and the highest number.

    Returns:
        Dictionary from the names to tensors `[count]`.
    """
    shares = tf.random.stateless_uniform([len(limits), count], seed)
    return {
        name: lowest + (highest - lowest) * share
        for (name, (lowest, highest)), share in zip(
            limits.items(), tf.unstack(shares)
        )
    }


def _variables(structure):
    return tf.nest.map_structure(
        lambda tensor: tf.Variable(tensor, trainable=False), structure
    )


def _tensors(variables):
    return tf.nest.map_structure(tf.convert_to_tensor, variables)


def _assign(variables, tensors):
    tf.nest.map_structure(
        lambda variable, tensor: variable.assign(tensor), variables, tensors
    )
