import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import bounded


class Bandits(GraphTaskFamily):
    """Bandits with several arms, each of which pays 1 or nothing.

    A task is the chances of the arms, uniform between 0 and 1. A rollout is
    a number of pulls; an observation is always zero, so that what an agent
    knows is what it remembers.

    Args:
        arms: Integer of 2 or more. Defaults to `5`.
        horizon: Integer, the pulls of a rollout. Defaults to `10`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.Bandits(arms=5, horizon=10)
    chances = environment.sample_task()  # [5]
    ```

    Reference:
        - [Duan et al., 2016](https://arxiv.org/abs/1611.02779)
    """

    def __init__(self, arms=5, horizon=10, batch_size=1, seed=0):
        arguments.check_positive_integer("arms", arms)
        if arms < 2:
            raise ValueError(
                f"A bandit must have 2 arms or more. Received: arms={arms}."
            )
        self.arms = int(arms)
        super().__init__(
            tf.TensorSpec([1], tf.float32, "observation"),
            bounded([], 0, self.arms - 1, tf.int32),
            task_spec=tf.TensorSpec([self.arms], tf.float32, "chances"),
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        return tf.random.stateless_uniform([count, self.arms], seed)

    def initial_state(self, tasks, seed):
        return ()

    def transition(self, state, actions, tasks, seed):
        chance = tf.gather(tasks, actions, axis=1, batch_dims=1)
        drawn = tf.random.stateless_uniform(tf.shape(chance), seed)
        reward = tf.cast(drawn < chance, tf.float32)
        return state, reward, tf.zeros_like(chance, tf.bool)

    def observe(self, state, tasks):
        return tf.zeros_like(tasks[:, :1])
