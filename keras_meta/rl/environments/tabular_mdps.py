import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import bounded


class TabularMDPs(GraphTaskFamily):
    """Small Markov decision processes, drawn at random.

    A task is a table of mean rewards, normal with mean 1 and deviation 1,
    and a table of the chances of the next state, from a flat Dirichlet
    distribution. A reward is normal around its mean, with deviation 1. A
    rollout starts in state 0; an observation is the state, one-hot.

    Args:
        states: Integer of 1 or more. Defaults to `10`.
        actions: Integer of 2 or more. Defaults to `5`.
        horizon: Integer, the steps of a rollout. Defaults to `10`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.TabularMDPs()
    task = environment.sample_task()
    task["rewards"]  # [10, 5]
    task["transitions"]  # [10, 5, 10], the chances of the next state
    ```

    Reference:
        - [Duan et al., 2016](https://arxiv.org/abs/1611.02779)
        - [Osband et al., 2013](https://arxiv.org/abs/1306.0940)
    """

    def __init__(self, states=10, actions=5, horizon=10, batch_size=1, seed=0):
        arguments.check_positive_integer("states", states)
        arguments.check_positive_integer("actions", actions)
        self.states, self.actions = int(states), int(actions)
        table = [self.states, self.actions]
        super().__init__(
            tf.TensorSpec([self.states], tf.float32, "observation"),
            bounded([], 0, self.actions - 1, tf.int32),
            task_spec={
                "rewards": tf.TensorSpec(table, tf.float32, "rewards"),
                "transitions": tf.TensorSpec(
                    [*table, self.states], tf.float32, "transitions"
                ),
            },
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        by_reward, by_transition = tf.unstack(
            tf.random.experimental.stateless_split(seed)
        )
        shape = [count, self.states, self.actions]
        rewards = tf.random.stateless_normal(shape, by_reward, mean=1.0)
        # A flat Dirichlet distribution is exponential numbers, normalized.
        uniform = tf.random.stateless_uniform(
            [*shape, self.states], by_transition, minval=1e-7
        )
        waits = -tf.math.log(uniform)
        chances = waits / tf.reduce_sum(waits, axis=-1, keepdims=True)
        return {"rewards": rewards, "transitions": chances}

    def initial_state(self, tasks, seed):
        return tf.zeros([tf.shape(tasks["rewards"])[0]], tf.int32)

    def transition(self, state, actions, tasks, seed):
        where = state * self.actions + tf.cast(actions, tf.int32)
        cells = self.states * self.actions
        means = tf.gather(
            tf.reshape(tasks["rewards"], [-1, cells]), where, batch_dims=1
        )
        chances = tf.gather(
            tf.reshape(tasks["transitions"], [-1, cells, self.states]),
            where,
            batch_dims=1,
        )
        by_reward, by_state = tf.unstack(
            tf.random.experimental.stateless_split(seed)
        )
        reward = means + tf.random.stateless_normal(tf.shape(means), by_reward)
        drawn = tf.random.stateless_uniform(tf.shape(means), by_state)
        passed = tf.cumsum(chances, axis=-1) <= drawn[:, None]
        state = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)
        # Rounded, the chances may add up to a little less than 1.
        state = tf.minimum(state, self.states - 1)
        return state, reward, tf.zeros_like(reward, tf.bool)

    def observe(self, state, tasks):
        return tf.one_hot(state, self.states)
