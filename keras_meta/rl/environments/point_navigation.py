import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import bounded

REWARDS = ("squared_distance", "distance")


class PointNavigation(GraphTaskFamily):
    """A point in the plane that shall go to a goal it cannot see.

    A task is a goal, uniform between -0.5 and 0.5 in both directions. The
    point starts at 0 and moves by up to 0.1 in each direction a step. It
    sees where it is. A rollout ends near the goal, or after 100 steps.

    Args:
        reward: `"squared_distance"` (the default): minus the squared
            distance to the goal, as the paper says; or `"distance"`: minus
            the distance, as in the code with which its figures were made. A
            point that stays at 0 gets about -17 and -38 in 100 steps.
        radius: Float from 0. A rollout ends where the point is nearer to the
            goal than that in both directions. Defaults to `0.01`.
        horizon: Integer, the steps of a rollout. Defaults to `100`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    goals = environment.sample_tasks(20, split="test")  # [20, 2]
    ```

    Reference:
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
    """

    def __init__(
        self,
        reward="squared_distance",
        radius=0.01,
        horizon=100,
        batch_size=1,
        seed=0,
    ):
        arguments.check_choice("reward", reward, REWARDS)
        arguments.check_number_from_zero("radius", radius)
        self.reward = reward
        self.radius = float(radius)
        super().__init__(
            tf.TensorSpec([2], tf.float32, "observation"),
            bounded([2], -0.1, 0.1),
            task_spec=tf.TensorSpec([2], tf.float32, "goal"),
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        return tf.random.stateless_uniform([count, 2], seed, -0.5, 0.5)

    def initial_state(self, tasks, seed):
        return tf.zeros_like(tasks)

    def transition(self, state, actions, tasks, seed):
        state = state + tf.clip_by_value(actions, -0.1, 0.1)
        offset = state - tasks
        reward = -tf.reduce_sum(tf.square(offset), axis=-1)
        if self.reward == "distance":
            reward = -tf.sqrt(-reward)
        near = tf.reduce_all(tf.abs(offset) < self.radius, axis=-1)
        return state, reward, near

    def observe(self, state, tasks):
        return state
