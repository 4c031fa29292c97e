import importlib.util
import os

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as time_steps

from keras_meta import arguments
from keras_meta.rl.environments import array_calls
from keras_meta.rl.environments import gymnasium_worker
from keras_meta.rl.environments import worker_pool
from keras_meta.rl.environments.task_family import TaskFamily
from keras_meta.rl.environments.task_family import bounded
from keras_meta.rl.environments.task_lists import TaskLists
from keras_meta.rl.rows import row_count


class GymnasiumTasks(TaskFamily):
    """Any environments of gymnasium that differ in the parameters of a task.

    They are stepped in processes of their own, each of which holds a part of
    the rows. The processes are started when they are needed and end with
    `close()`, at the end of a `with` block, when nothing refers to the family
    any more, and with Python. A script needs no `if __name__ ==
    "__main__"`. A worker imports the module that `make` is from, unless that
    is the script itself: keep TensorFlow out of there, so that workers start
    quickly.

    There is one set of environments: `start()`, and so `reset()`, takes them
    from the rollouts that were there before, which cannot be continued.

    Observations become float32, int32 or uint8. Actions are clipped to their
    bounds. A rollout that the environment truncates, or that reaches the
    horizon, ends with a discount of 1, a terminated one with 0.

    Args:
        make: A function from a task to an environment of gymnasium. It is
            handed to the workers by cloudpickle.
        tasks: Which tasks there are: a function as `draw_tasks(count, seed,
            split)` of `TaskFamily`, written in TensorFlow; or a dictionary of
            lists of tasks, with the keys `"train"`, `"test"` and, if wanted,
            `"validation"`. A task is a number, an array, or a dictionary of
            these. Of a list, each task is drawn once before any is drawn
            again.
        horizon: Integer of 1 or more, the most steps of a rollout.
        set_task: Optional function of an environment and a task, which gives
            the environment another task. Without it, an environment is made
            for each new task, which can take longer than its rollout.
        workers: Integer of 1 or more, the number of processes. `None` (the
            default) means as many as processors. There are never more than
            rows.
        timeout: Float, the seconds within which a worker must make one step
            in all its rows, or begin a rollout in all of them. Defaults to
            `60`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks are drawn.

    Raises:
        ValueError: Where an argument is not as described, a task is in two
            lists, or the spaces of an environment differ from those of
            another, or are not supported.
        RuntimeError: Where an environment raises an error or hangs, with its
            task, or where a worker is killed. Within a graph, TensorFlow makes
            a `tf.errors.OpError` of it. All workers are closed then.
        ImportError: Where gymnasium is not installed.

    Example:

    ```python
    import gymnasium

    environment = keras_meta.rl.environments.GymnasiumTasks(
        lambda gravity: gymnasium.make("Pendulum-v1", g=gravity),
        tasks={"train": [8.0, 9.0, 10.0, 11.0], "test": [8.5, 10.5]},
        horizon=200,
        workers=1,
    )
    with environment:
        time_step = environment.reset()
        time_step = environment.step([[0.5]])
    ```
    """

    def __init__(
        self,
        make,
        tasks,
        horizon,
        set_task=None,
        workers=None,
        timeout=60.0,
        batch_size=1,
        seed=0,
    ):
        if workers is None:
            workers = os.cpu_count() or 1
        arguments.check_positive_integer("workers", workers)
        arguments.check_positive_number("timeout", timeout)
        arguments.check_positive_integer("horizon", horizon)
        _check_functions(make=make, set_task=set_task)
        functions = worker_pool.pickled((make, set_task))
        if importlib.util.find_spec("gymnasium") is None:
            raise ImportError(
                "`GymnasiumTasks` needs the package gymnasium, which is not "
                "installed. Run:\n\n    pip install gymnasium\n"
            )
        self.workers = int(workers)
        self._draw = tasks if callable(tasks) else TaskLists(tasks)
        first = self._draw(1, tf.constant([0, 0]), "train")
        task_spec = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), first
        )
        example = None
        self._pool = worker_pool.WorkerPool(
            gymnasium_worker.__file__,
            float(timeout),
            lambda: ("set_up", (functions, int(horizon), example)),
        )
        # Which tasks each worker has, for errors.
        self._shares = [_by_row(first)]
        # How often the environments have moved, so that rows of which they
        # are no longer the environments can be told.
        self._moves = 0
        observation, action, example = self._ask(
            "describe", [tuple(self._shares[0])]
        )[0]
        super().__init__(
            _spec(observation, "observation"),
            _spec(action, "action"),
            task_spec,
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )
        self._turns = tf.Variable(0, trainable=False)

    def draw_tasks(self, count, seed, split):
        return self._draw(count, seed, split)

    def start(self, tasks, seed):
        tasks = tf.nest.map_structure(
            lambda spec, leaf: tf.convert_to_tensor(leaf, spec.dtype),
            self.task_spec,
            tasks,
        )
        leaves = tf.nest.flatten(tasks)
        rows = leaves[0].shape[0]
        moves, *observation = self._in_turn(
            self._start,
            [seed, *leaves],
            [tf.int32, *self._observation_dtypes()],
        )
        count = row_count(tasks)
        return moves, time_steps.TimeStep(
            tf.fill([count], time_steps.StepType.FIRST),
            tf.zeros([count]),
            tf.ones([count]),
            self._observation(observation, rows),
        )

    def advance(self, carry, actions):
        spec = self.action_spec()
        actions = tf.convert_to_tensor(actions, spec.dtype)
        rows = actions.shape[0]
        if spec.dtype.is_floating and hasattr(spec, "minimum"):
            actions = tf.clip_by_value(actions, spec.minimum, spec.maximum)
        moves, *observation, step_type, reward, discount = self._in_turn(
            self._advance,
            [carry, actions],
            [
                tf.int32,
                *self._observation_dtypes(),
                tf.int32,
                tf.float32,
                tf.float32,
            ],
        )
        return moves, time_steps.TimeStep(
            tf.ensure_shape(step_type, [rows]),
            tf.ensure_shape(reward, [rows]),
            tf.ensure_shape(discount, [rows]),
            self._observation(observation, rows),
        )

    def restart(self, carry, time_step, rows):
        moves, *observation = self._in_turn(
            self._restart,
            [carry, rows, *tf.nest.flatten(time_step.observation)],
            [tf.int32, *self._observation_dtypes()],
        )
        return moves, time_step._replace(
            step_type=tf.where(
                rows, time_steps.StepType.FIRST, time_step.step_type
            ),
            observation=self._observation(
                observation, time_step.step_type.shape[0]
            ),
        )

    def _in_turn(self, method, inputs, dtypes):
        """Calls a method in the graph, after all calls before it."""
        # In a graph, calls of Python have no order but that of the tensors
        # they take and give. What changes a variable has one.
        with tf.control_dependencies([self._turns.assign_add(1)]):
            outputs = array_calls.call(method, inputs, dtypes)
        with tf.control_dependencies(outputs):
            self._turns.assign_add(1)
        return outputs

    def close(self):
        """Ends the worker processes; the family cannot be used any more."""
        self._pool.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    # What follows runs in Python, on arrays.

    def _start(self, seed, *leaves):
        tasks = _by_row(tf.nest.pack_sequence_as(self.task_spec, leaves))
        seeds = np.random.SeedSequence(seed.astype(np.uint32).tolist())
        seeds = seeds.generate_state(len(tasks))
        self._shares = worker_pool.shared_out(tasks, self.workers)
        self._moves += 1
        return self._joined(
            self._ask(
                "start",
                zip(self._shares, worker_pool.shared_out(seeds, self.workers)),
            )
        )

    def _advance(self, moves, actions):
        self._check_current(moves)
        shares = worker_pool.shared_out(actions, self.workers)
        return self._joined(self._ask("step", [(share,) for share in shares]))

    def _restart(self, moves, rows, *observation):
        self._check_current(moves)
        if not rows.any():
            return self._counted(observation)
        numbers = [
            (np.flatnonzero(share),)
            for share in worker_pool.shared_out(rows, self.workers)
        ]
        anew = zip(*filter(None, self._ask("restart", numbers)))
        observation = [leaf.copy() for leaf in observation]
        for leaf, parts in zip(observation, anew):
            leaf[rows] = np.concatenate(parts)
        return self._counted(observation)

    def _joined(self, answers):
        return self._counted([np.concatenate(parts) for parts in zip(*answers)])

    def _counted(self, arrays):
        return [np.int32(self._moves), *arrays]

    def _check_current(self, moves):
        if moves != self._moves:
            raise ValueError(
                "A rollout must go on from its last step. Received: rows "
                "whose environments have moved on since, by `start()`, "
                "`reset()`, or another step. Begin anew, or use a second "
                f"`{type(self).__name__}` beside this one."
            )
        self._moves += 1

    def _ask(self, name, arguments_by_worker):
        return self._pool.ask(
            [(name, arguments) for arguments in arguments_by_worker],
            self._whose,
        )

    def _whose(self, number, task=None):
        if task is not None:
            return f"task {gymnasium_worker.shown(task)}"
        return f"tasks {gymnasium_worker.shown(self._shares[number])}"

    def _observation_dtypes(self):
        leaves = tf.nest.flatten(self.observation_spec())
        return [leaf.dtype for leaf in leaves]

    def _observation(self, leaves, rows):
        return tf.nest.map_structure(
            lambda spec, leaf: tf.ensure_shape(leaf, [rows, *spec.shape]),
            self.observation_spec(),
            tf.nest.pack_sequence_as(self.observation_spec(), leaves),
        )


def _check_functions(make, set_task):
    for name, function in (("make", make), ("set_task", set_task)):
        if not callable(function) and (name == "make" or function is not None):
            raise TypeError(
                f"`{name}` must be a function. Received: {name}={function!r}."
            )


def _by_row(tasks):
    """Returns a list of tasks, of numbers of Python and arrays."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(tasks)]
    return [
        tf.nest.pack_sequence_as(
            tasks, [part if part.ndim else part.item() for part in parts]
        )
        for parts in zip(*[list(map(np.asarray, leaf)) for leaf in leaves])
    ]


def _spec(described, name):
    """Returns the specification of what a space holds."""
    if isinstance(described, dict):
        return {key: _spec(part, key) for key, part in described.items()}
    dtype, shape, low, high = described
    dtype = tf.as_dtype(dtype)
    if dtype.is_floating and np.isinf(low).all() and np.isinf(high).all():
        return tf.TensorSpec(shape, dtype, name)
    low, high = np.clip([low, high], dtype.min, dtype.max)
    return bounded(shape, low, high, dtype, name)
