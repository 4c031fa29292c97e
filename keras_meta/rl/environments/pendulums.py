import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import bounded
from keras_meta.rl.environments.task_family import uniform_numbers

# Seconds a step.
STEP = 0.05
GRAVITY = 10.0
LARGEST_SPEED = 8.0


class Pendulums(GraphTaskFamily):
    """Pendulums of different mass and length, to be swung up.

    A task is the mass and the length of a pendulum. It hangs at any angle at
    first; the agent sees the cosine and the sine of the angle, and the speed,
    and pushes by a torque of up to 2. The reward is minus the squared angle
    from upright, a tenth of the squared speed, and a thousandth of the
    squared torque, as in gymnasium's `Pendulum-v1`, whose pendulum has mass 1
    and length 1.

    Args:
        mass: Tuple of two floats above 0, between which masses are uniform.
            Defaults to `(0.7, 1.3)`.
        length: The same, of the lengths. Defaults to `(0.7, 1.3)`.
        horizon: Integer, the steps of a rollout. Defaults to `200`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.Pendulums(horizon=100)
    tasks = environment.sample_tasks(20)
    tasks["mass"]  # [20]
    ```
    """

    def __init__(
        self,
        mass=(0.7, 1.3),
        length=(0.7, 1.3),
        horizon=200,
        batch_size=1,
        seed=0,
    ):
        arguments.check_limits("mass", mass)
        arguments.check_limits("length", length)
        self.mass, self.length = tuple(mass), tuple(length)
        super().__init__(
            tf.TensorSpec([3], tf.float32, "observation"),
            bounded([1], -2.0, 2.0),
            task_spec={
                "mass": tf.TensorSpec([], tf.float32, "mass"),
                "length": tf.TensorSpec([], tf.float32, "length"),
            },
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        limits = {"mass": self.mass, "length": self.length}
        return uniform_numbers(count, seed, limits)

    def initial_state(self, tasks, seed):
        count = tf.shape(tasks["mass"])[0]
        angle, speed = tf.unstack(
            tf.random.stateless_uniform([2, count], seed, -1.0, 1.0)
        )
        return {"angle": np.pi * angle, "speed": speed}

    def transition(self, state, actions, tasks, seed):
        torque = tf.clip_by_value(actions[:, 0], -2.0, 2.0)
        angle, speed = state["angle"], state["speed"]
        # From upright, and less than half a turn.
        turned = tf.math.floormod(angle + np.pi, 2 * np.pi) - np.pi
        reward = -(turned**2 + 0.1 * speed**2 + 0.001 * torque**2)
        mass, length = tasks["mass"], tasks["length"]
        speed += STEP * (
            1.5 * GRAVITY / length * tf.sin(angle)
            + 3.0 / (mass * length**2) * torque
        )
        speed = tf.clip_by_value(speed, -LARGEST_SPEED, LARGEST_SPEED)
        state = {"angle": angle + STEP * speed, "speed": speed}
        return state, reward, tf.zeros_like(reward, tf.bool)

    def observe(self, state, tasks):
        angle = state["angle"]
        return tf.stack([tf.cos(angle), tf.sin(angle), state["speed"]], axis=1)
