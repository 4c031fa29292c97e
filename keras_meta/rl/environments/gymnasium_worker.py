"""What a worker process of `GymnasiumTasks` runs: a script of its own.

It imports neither this package nor the user's script, so that it starts
quickly, without TensorFlow, and needs no `if __name__ == "__main__"` there.
"""

import math
import os
import pickle
import signal
import sys
import traceback

import numpy as np

FIRST, MID, LAST = 0, 1, 2
SUPPORTED = "Box, Discrete, MultiBinary, MultiDiscrete"


class Refused(Exception):
    """What an environment does that must not be, in words for the user."""


class Row:
    """An environment, its task, and how far its rollout is."""

    def __init__(self, environment, task):
        self.environment = environment
        self.task = task
        self.steps = 0
        self.over = False

    def reset(self, seed=None):
        self.steps, self.over = 0, False
        observation, _ = self.environment.reset(seed=seed)
        return observation


class Worker:
    """The environments of some rows; its methods are the requests to it."""

    def __init__(self):
        self.rows = []
        # Whose environment is being asked, for errors.
        self.task = None

    def set_up(self, functions, horizon, example):
        """Takes what all requests need.

        Args:
            functions: Bytes, the functions `make` and `set_task`, pickled.
            horizon: Integer, the steps of a rollout.
            example: Bytes, a task and the spaces of its environment, pickled;
                or `None` for the worker that shall describe them.
        """
        self.make, self.set_task = pickle.loads(functions)
        self.horizon = horizon
        self.example = None if example is None else pickle.loads(example)

    def describe(self, task):
        """Returns the spaces of a task's environment: for specifications, and
        for other workers to compare."""
        self._place(0, task)
        environment = self.rows[0].environment
        self.example = (
            task,
            environment.observation_space,
            environment.action_space,
        )
        _, observation_space, action_space = self.example
        return (
            described(observation_space, "observation", SUPPORTED + ", Dict"),
            described(action_space, "action", SUPPORTED),
            pickle.dumps(self.example),
        )

    def start(self, tasks, seeds):
        """Begins a rollout in each task; returns the observations."""
        for row in self.rows[len(tasks) :]:
            row.environment.close()
        del self.rows[len(tasks) :]
        observations = []
        for number, (task, seed) in enumerate(zip(tasks, seeds)):
            self._place(number, task)
            observations.append(self._read(self.rows[number].reset(int(seed))))
        return stacked(observations)

    def step(self, actions):
        """Takes a step in each row, or begins anew where its rollout is over.

        Returns observations, step types, rewards and discounts.
        """
        answers = [
            self._step(row, action) for row, action in zip(self.rows, actions)
        ]
        observations, types, rewards, discounts = zip(*answers)
        return [
            *stacked(observations),
            np.array(types, np.int32),
            np.array(rewards, np.float32),
            np.array(discounts, np.float32),
        ]

    def restart(self, numbers):
        """Begins a new rollout in some rows; returns their observations."""
        observations = []
        for number in numbers:
            self.task = self.rows[number].task
            observations.append(self._read(self.rows[number].reset()))
        return stacked(observations)

    def _step(self, row, action):
        self.task = row.task
        if row.over:
            return self._read(row.reset()), FIRST, 0.0, 1.0
        _, _, space = self.example
        action = action.astype(space.dtype) if space.shape else int(action)
        observation, reward, terminal, truncated, _ = row.environment.step(
            action
        )
        reward = float(reward)
        if not math.isfinite(reward):
            raise Refused(
                "The rewards of an environment must be finite. Received: "
                f"{reward} in task {shown(row.task)}, for the action "
                f"{shown(action)}."
            )
        row.steps += 1
        row.over = bool(terminal or truncated or row.steps >= self.horizon)
        return (
            self._read(observation),
            LAST if row.over else MID,
            reward,
            0.0 if terminal else 1.0,
        )

    def _read(self, observation):
        return [
            self._checked(space, value)
            for space, value in leaves(self.example[1], observation)
        ]

    def _checked(self, space, value):
        value = np.asarray(value, narrow(space.dtype))
        if value.shape != space.shape:
            raise Refused(
                "An observation must fit the space of its environment. "
                f"Received: shape {value.shape} for {space} in task "
                f"{shown(self.task)}."
            )
        return value

    def _place(self, number, task):
        """Sees to an environment for a task; keeps the one that is there."""
        self.task = task
        row = self.rows[number] if number < len(self.rows) else None
        if row is not None and pickle.dumps(row.task) == pickle.dumps(task):
            return
        if row is not None and self.set_task is not None:
            self.set_task(row.environment, task)
            row.task = task
        else:
            if row is not None:
                row.environment.close()
            row = Row(self.make(task), task)
            self.rows[number : number + 1] = [row]
        self._check(row.environment)

    def _check(self, environment):
        for name in ("observation_space", "action_space"):
            if not hasattr(environment, name):
                raise Refused(
                    "`make` must return a gymnasium environment. Received: "
                    f"{environment!r} for task {shown(self.task)}."
                )
        if self.example is None:
            return
        task, *expected = self.example
        spaces = [environment.observation_space, environment.action_space]
        if spaces != expected:
            raise Refused(
                "The environments of all tasks must have the same spaces. "
                f"Received: task {shown(task)} with {in_words(expected)}; "
                f"task {shown(self.task)} with {in_words(spaces)}."
            )


def described(space, what, supported):
    """Returns dtype, shape, lowest and highest value of what a space holds;
    of a `Dict` space, a dictionary of these."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict) and "Dict" in supported:
        return {
            key: described(part, what, supported)
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, spaces.Discrete):
        low, high = int(space.start), int(space.start + space.n - 1)
    elif isinstance(space, spaces.MultiBinary):
        low, high = 0, 1
    elif isinstance(space, spaces.MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    else:
        raise Refused(
            f"The {what} space of an environment must be one of {supported}. "
            f"Received: {space}. Wrap the environment, such as in "
            "`gymnasium.wrappers.FlattenObservation`."
        )
    return narrow(space.dtype), space.shape, low, high


def narrow(dtype):
    """Returns the name of the dtype in TensorFlow: numbers of 32 bits, bytes
    as they are."""
    if dtype == np.uint8:
        return "uint8"
    return "float32" if np.issubdtype(dtype, np.floating) else "int32"


def leaves(space, value):
    """Yields the simple spaces within a space, and what is in them, in the
    order in which TensorFlow flattens a dictionary."""
    parts = getattr(space, "spaces", None)
    if parts is None:
        yield space, value
    else:
        for key in sorted(parts):
            yield from leaves(parts[key], value[key])


def stacked(observations):
    return [np.stack(parts) for parts in zip(*observations)]


def in_words(spaces):
    return "observations {} and actions {}".format(*spaces)


def shown(task):
    """Returns a task as it is shown in an error."""
    if isinstance(task, dict):
        parts = [f"{key!r}: {shown(value)}" for key, value in task.items()]
        return "{" + ", ".join(parts) + "}"
    if isinstance(task, (list, tuple)):
        more = ["..."] if len(task) > 10 else []
        return "[" + ", ".join([*map(shown, task[:10]), *more]) + "]"
    return np.array2string(
        np.asarray(task),
        separator=", ",
        threshold=20,
        # As many digits as a float32 has.
        formatter={"float_kind": "{:.6g}".format},
    )


def answer(worker, name, arguments):
    """Returns what a request gives: a result, or what went wrong."""
    try:
        return "done", getattr(worker, name)(*arguments)
    except Refused as error:
        return "refused", str(error)
    # `sys.exit()` in an environment, too.
    except BaseException:
        return "raised", (worker.task, traceback.format_exc())


def serve():
    """Answers requests from the standard input until it is closed."""
    # Ctrl+C is for the main process, which goes on to close its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    # What an environment prints must not get among the answers.
    os.dup2(2, 1)
    worker = Worker()
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(answer(worker, *request), answers, protocol=5)
        answers.flush()


if __name__ == "__main__":
    serve()
