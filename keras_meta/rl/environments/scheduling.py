import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import bounded


class Scheduling(GraphTaskFamily):
    """Jobs of several kinds that share a machine: which one is next?

    In each step, a job of each kind arrives with a chance of its own, and
    the machine works at a job of the kind that the action names: with the
    chance of that kind it is done. A job that waits costs what its kind
    costs, in each step. The agent sees how many jobs of each kind there are,
    in tens.

    A task is the three chances and costs of each kind, none of which is seen.
    The kinds keep the machine busy for 60 to 95 % of the time. Best in any
    task is the cμ rule: serve the kind that is there for which the cost,
    times the chance to be done, is the highest. It does not ask how many jobs
    there are or come, but which kind that is differs from task to task, and
    must be found out.

    Args:
        kinds: Integer of 2 or more, the kinds of jobs. Defaults to `3`.
        backlog: Integer from 0, the jobs of each kind with which a rollout
            begins. Defaults to `5`.
        horizon: Integer, the steps of a rollout. Defaults to `100`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.Scheduling(kinds=3)
    task = environment.sample_task()
    task["arrival"]  # [3], the chances that a job arrives
    task["service"]  # [3], the chances that a job is done
    task["cost"]  # [3], what a job costs while it waits
    ```

    Reference:
        - [Baras et al., 1985](https://doi.org/10.1016/0167-6911(85)90037-4)
    """

    def __init__(self, kinds=3, backlog=5, horizon=100, batch_size=1, seed=0):
        arguments.check_positive_integer("kinds", kinds)
        if kinds < 2:
            raise ValueError(
                "There must be 2 kinds of jobs or more. Received: "
                f"kinds={kinds}."
            )
        arguments.check_integer_from_zero("backlog", backlog)
        self.kinds, self.backlog = int(kinds), int(backlog)
        super().__init__(
            tf.TensorSpec([self.kinds], tf.float32, "observation"),
            bounded([], 0, self.kinds - 1, tf.int32),
            task_spec={
                name: tf.TensorSpec([self.kinds], tf.float32, name)
                for name in ("arrival", "service", "cost")
            },
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
        shape = [count, self.kinds]
        service = tf.random.stateless_uniform(shape, seeds[0], 0.2, 0.9)
        cost = tf.random.stateless_uniform(shape, seeds[1], 0.1, 1.0)
        load = tf.random.stateless_uniform([count, 1], seeds[2], 0.6, 0.95)
        parts = tf.random.stateless_uniform(shape, seeds[3], 0.1, 1.0)
        share = parts / tf.reduce_sum(parts, axis=-1, keepdims=True)
        return {
            "arrival": load * share * service,
            "service": service,
            "cost": cost,
        }

    def initial_state(self, tasks, seed):
        return tf.fill(tf.shape(tasks["cost"]), float(self.backlog))

    def transition(self, state, actions, tasks, seed):
        drawn = tf.random.stateless_uniform(
            [2, *tf.unstack(tf.shape(state))], seed
        )
        served = tf.one_hot(actions, self.kinds) * tasks["service"]
        done = tf.cast(drawn[0] < served, tf.float32)
        arrived = tf.cast(drawn[1] < tasks["arrival"], tf.float32)
        state = tf.maximum(state - done, 0.0) + arrived
        reward = -tf.reduce_sum(tasks["cost"] * state, axis=-1)
        return state, reward, tf.zeros_like(reward, tf.bool)

    def observe(self, state, tasks):
        return state / 10.0
