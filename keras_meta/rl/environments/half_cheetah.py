import importlib.util

import tensorflow as tf

from keras_meta.rl.environments.gymnasium_tasks import GymnasiumTasks


class HalfCheetahDirections(GymnasiumTasks):
    """A half cheetah, in MuJoCo, that shall run forward or backward.

    A task is the direction, 1 or -1. A step is worth the velocity in that
    direction, minus 0.05 times the squared action. There are only these two
    tasks: those of all splits are the same, and what is measured in
    `"test"` is how an agent tells them apart, and not how it does in new
    ones. `HalfCheetahVelocities` has unseen tasks.

    The agent sees the 17 numbers that gymnasium's `HalfCheetah-v5` shows.
    Papers, whose code is built on older versions, show up to 20.

    Args:
        horizon: Integer, the steps of a rollout. Defaults to `100`.
        workers: Integer, the number of processes; see `GymnasiumTasks`.
        timeout: Float, the seconds that a step in all rows of a worker may
            take. Defaults to `60`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks are drawn.

    Raises:
        ValueError: Where an argument is not as described.
        ImportError: Where gymnasium or mujoco is not installed.

    Example:

    ```python
    environment = keras_meta.rl.environments.HalfCheetahDirections(workers=1)
    with environment:
        directions = environment.sample_tasks(40)  # [40]
    ```

    Reference:
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
    """

    def __init__(
        self, horizon=100, workers=None, timeout=60.0, batch_size=1, seed=0
    ):
        _check_installed()
        super().__init__(
            _make_directed,
            _draw_directions,
            horizon=horizon,
            set_task=_set_goal,
            workers=workers,
            timeout=timeout,
            batch_size=batch_size,
            seed=seed,
        )


class HalfCheetahVelocities(GymnasiumTasks):
    """A half cheetah, in MuJoCo, that shall run with a certain velocity.

    A task is the velocity, uniform between 0 and 2. A step costs the
    distance to it, and 0.05 times the squared action. The agent sees the 17
    numbers that gymnasium's `HalfCheetah-v5` shows.

    Args:
        horizon: Integer, the steps of a rollout. Defaults to `100`.
        workers: Integer, the number of processes; see `GymnasiumTasks`.
        timeout: Float, the seconds that a step in all rows of a worker may
            take. Defaults to `60`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.
        ImportError: Where gymnasium or mujoco is not installed.

    Example:

    ```python
    environment = keras_meta.rl.environments.HalfCheetahVelocities(workers=1)
    with environment:
        velocities = environment.sample_tasks(40, split="test")  # [40]
    ```

    Reference:
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
    """

    def __init__(
        self, horizon=100, workers=None, timeout=60.0, batch_size=1, seed=0
    ):
        _check_installed()
        super().__init__(
            _make_timed,
            _draw_velocities,
            horizon=horizon,
            set_task=_set_goal,
            workers=workers,
            timeout=timeout,
            batch_size=batch_size,
            seed=seed,
        )


def _draw_directions(count, seed, split):
    forward = tf.random.stateless_uniform([count], seed) < 0.5
    return tf.where(forward, 1.0, -1.0)


def _draw_velocities(count, seed, split):
    return tf.random.stateless_uniform([count], seed, 0.0, 2.0)


def _make_directed(direction):
    return _make(direction, lambda direction, velocity: direction * velocity)


def _make_timed(goal):
    return _make(goal, lambda goal, velocity: -abs(velocity - goal))


def _make(goal, worth):
    """Makes a cheetah whose velocity is worth something else."""
    import gymnasium
    import mujoco

    class Cheetah(gymnasium.Wrapper):
        def step(self, action):
            observation, _, terminated, truncated, info = super().step(action)
            reward = worth(self.goal, info["x_velocity"]) + info["reward_ctrl"]
            return observation, reward, terminated, truncated, info

    # For each cheetah, MuJoCo 4 would warn of an attribute in gymnasium's file
    # that it no longer likes.
    mujoco.set_mju_user_warning(lambda text: None)
    plain = gymnasium.make(
        "HalfCheetah-v5",
        ctrl_cost_weight=0.05,
        # None: the horizon is that of the family.
        max_episode_steps=-1,
        disable_env_checker=True,
    )
    mujoco.set_mju_user_warning(None)
    cheetah = Cheetah(plain)
    cheetah.goal = goal
    return cheetah


def _set_goal(cheetah, goal):
    cheetah.goal = goal


def _check_installed():
    for package in ("gymnasium", "mujoco"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"A half cheetah needs the package {package}, which is not "
                "installed. Run:\n\n    pip install 'gymnasium[mujoco]'\n"
            )
