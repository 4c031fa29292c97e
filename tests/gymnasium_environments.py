"""Small environments of gymnasium, for the tests of `GymnasiumTasks`.

They are here, and not beside the tests, so that worker processes can import
them without TensorFlow.
"""

import os
import signal
import sys
import time

import gymnasium
import numpy as np


class Line(gymnasium.Env):
    """A point that moves on a line, from a random start to a goal."""

    def __init__(self, goal):
        # Not a number of 32 bits, and without bounds.
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, [2], np.float64
        )
        self.action_space = gymnasium.spaces.Box(-0.5, 0.5, [1], np.float32)
        self.goal = goal
        self.resets = 0

    def observe(self):
        return np.array([self.where, self.goal])

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        self.where = self.np_random.normal()
        return self.observe(), {}

    def step(self, action):
        assert abs(action[0]) <= 0.5
        self.where += action[0]
        distance = abs(self.where - self.goal)
        return self.observe(), -distance, bool(distance < 0.1), False, {}


def line(goal):
    return Line(goal)


class Lamps(gymnasium.Env):
    """Lamps to switch; all that can be seen is in parts."""

    def __init__(self, task):
        spaces = gymnasium.spaces
        self.observation_space = spaces.Dict(
            {
                "steps": spaces.Discrete(100, start=-1),
                "picture": spaces.Box(0, 255, [2, 2, 1], np.uint8),
                "inner": spaces.Dict(
                    {
                        "lamps": spaces.MultiBinary(3),
                        "hours": spaces.MultiDiscrete([24, 60]),
                        "heat": spaces.Box(0.0, 1.0, [1], np.float32),
                    }
                ),
            }
        )
        self.action_space = spaces.Discrete(3, start=2)
        self.task = task

    def observe(self):
        return {
            "steps": self.steps,
            "picture": np.full([2, 2, 1], self.task["color"], np.uint8),
            "inner": {
                "lamps": self.lamps.copy(),
                "hours": np.array([1, self.steps]),
                "heat": np.array(self.task["heat"][:1], np.float32),
            },
        }

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.lamps = np.zeros(3, np.int8)
        return self.observe(), {}

    def step(self, action):
        assert isinstance(action, int)
        self.steps += 1
        self.lamps[action - 2] = 1
        everything = bool(self.lamps.all())
        return self.observe(), float(action), False, everything, {}


class Faulty(Line):
    """Does in its second step what its task says."""

    faults = ("none", "raise", "hang", "nan", "die", "exit", "shape", "print")

    def __init__(self, task):
        fault = int(task)
        if fault == 90:
            raise OSError("no such robot")
        super().__init__(float(task))
        if fault == 91:
            self.action_space = gymnasium.spaces.Discrete(2)
        self.fault = self.faults[fault] if fault < len(self.faults) else "none"
        self.steps = 0

    def step(self, action):
        observation, reward, *rest = super().step(action)
        self.steps += 1
        if self.steps == 2:
            if self.fault == "raise":
                raise KeyError("a broken joint")
            if self.fault == "hang":
                time.sleep(1000)
            if self.fault == "nan":
                reward = np.nan
            if self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "exit":
                sys.exit(3)
            if self.fault == "shape":
                observation = observation[:1]
            if self.fault == "print":
                print("noise among the answers", flush=True)
        return observation, reward, *rest


class Tuples(Line):
    """Has a space that nothing here can use."""

    def __init__(self, task):
        super().__init__(task)
        box = self.observation_space
        self.observation_space = gymnasium.spaces.Tuple([box, box])


class DictActions(Line):
    def __init__(self, task):
        super().__init__(task)
        self.action_space = gymnasium.spaces.Dict({"move": self.action_space})
