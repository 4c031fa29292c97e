import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import bounded


class Scheduling(GraphTaskFamily):
    """Jobs of several kinds that arrive: which machine shall do each?

    In each step a job arrives with some chance, of one kind or another, and
    the action sends it to a machine. Each machine shares its time among its
    jobs, and is good at some kinds and bad at others. The reward is minus the
    number of jobs that are not done. The agent sees how many jobs of each
    kind each machine has, in tens, and the kind of the job at hand, one-hot
    (zeros where there is none; the action then does nothing).

    A task is how often jobs arrive, of which kinds, and how fast each machine
    is with each kind. None of it is seen. Machines that were always given the
    next best job would be busy for 60 to 95 % of the time.

    Args:
        machines: Integer of 2 or more. Defaults to `3`.
        kinds: Integer of 1 or more, the kinds of jobs. Defaults to `2`.
        horizon: Integer, the steps of a rollout. Defaults to `100`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.Scheduling(machines=3, kinds=2)
    task = environment.sample_task()
    task["arrival"]  # [2], the chances that a job of a kind arrives
    task["speed"]  # [3, 2], the chances that a job alone is done in a step
    ```
    """

    def __init__(self, machines=3, kinds=2, horizon=100, batch_size=1, seed=0):
        arguments.check_positive_integer("machines", machines)
        arguments.check_positive_integer("kinds", kinds)
        if machines < 2:
            raise ValueError(
                "There must be 2 machines or more to choose from. Received: "
                f"machines={machines}."
            )
        self.machines, self.kinds = int(machines), int(kinds)
        size = (self.machines + 1) * self.kinds
        super().__init__(
            tf.TensorSpec([size], tf.float32, "observation"),
            bounded([], 0, self.machines - 1, tf.int32),
            task_spec={
                "arrival": tf.TensorSpec([self.kinds], tf.float32, "arrival"),
                "speed": tf.TensorSpec(
                    [self.machines, self.kinds], tf.float32, "speed"
                ),
            },
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        by_speed, by_load, by_share = tf.unstack(
            tf.random.experimental.stateless_split(seed, 3)
        )
        speed = tf.random.stateless_uniform(
            [count, self.machines, self.kinds], by_speed, 0.1, 1.0
        )
        # All machines together do about a job in each step.
        together = tf.reduce_sum(
            tf.reduce_mean(speed, axis=2, keepdims=True), axis=1, keepdims=True
        )
        load = tf.random.stateless_uniform([count, 1], by_load, 0.6, 0.95)
        parts = tf.random.stateless_uniform(
            [count, self.kinds], by_share, 0.2, 1.0
        )
        share = parts / tf.reduce_sum(parts, axis=1, keepdims=True)
        return {
            "arrival": load * share,
            "speed": tf.minimum(speed / together, 1.0),
        }

    def initial_state(self, tasks, seed):
        rows = tf.shape(tasks["arrival"])[0]
        return {
            "jobs": tf.zeros([rows, self.machines, self.kinds]),
            "at_hand": self._arriving(tasks, seed),
        }

    def _arriving(self, tasks, seed):
        """Returns the kind of the next job, one-hot; zeros for none."""
        until = tf.cumsum(tasks["arrival"], axis=1)
        drawn = tf.random.stateless_uniform([tf.shape(until)[0], 1], seed)
        before = tf.concat([tf.zeros_like(drawn), until[:, :-1]], axis=1)
        return tf.cast((before <= drawn) & (drawn < until), tf.float32)

    def transition(self, state, actions, tasks, seed):
        by_service, by_arrival = tf.unstack(
            tf.random.experimental.stateless_split(seed)
        )
        sent = tf.one_hot(actions, self.machines)
        jobs = state["jobs"] + sent[:, :, None] * state["at_hand"][:, None, :]
        # A machine shares its time among its jobs.
        sharing = tf.maximum(tf.reduce_sum(jobs, axis=2, keepdims=True), 1.0)
        drawn = tf.random.stateless_uniform(tf.shape(jobs), by_service)
        done = tf.cast(drawn < tasks["speed"] * jobs / sharing, tf.float32)
        jobs = tf.maximum(jobs - done, 0.0)
        reward = -tf.reduce_sum(jobs, axis=[1, 2])
        state = {"jobs": jobs, "at_hand": self._arriving(tasks, by_arrival)}
        return state, reward, tf.zeros_like(reward, tf.bool)

    def observe(self, state, tasks):
        rows = tf.shape(state["at_hand"])[0]
        jobs = tf.reshape(state["jobs"], [rows, self.machines * self.kinds])
        return tf.concat([jobs / 10.0, state["at_hand"]], axis=1)
