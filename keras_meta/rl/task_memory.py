"""A memory of tasks, and of the transitions that were seen in each."""

import collections

import tensorflow as tf

from keras_meta.rl import rollouts

# Steps of rollouts, each with what was seen after it. The discount is 0 where
# a rollout came to an end that is one, and 1 at the horizon.
Transitions = collections.namedtuple(
    "Transitions",
    ["observation", "action", "reward", "discount", "next_observation"],
)


def transitions_of(experience):
    """Returns the transitions of the first rollout of each row.

    Args:
        experience: A `Trajectory` of tensors `[rows, steps + 1, ...]`: one
            step more, which shows how the last one ended.

    Returns:
        A tuple: `Transitions` of tensors `[rows, steps, ...]`, and their
        weights `[rows, steps]`, 0 after the end of a rollout.
    """
    here, after = [
        tf.nest.map_structure(lambda leaf: leaf[:, where], experience)
        for where in (slice(None, -1), slice(1, None))
    ]
    transitions = Transitions(
        here.observation,
        here.action,
        here.reward,
        here.discount,
        after.observation,
    )
    return transitions, rollouts.first_rollout(here)


class TaskMemory(tf.Module):
    """A ring of slots, each of which holds the rollouts of one task.

    New tasks take the places of the oldest. All is held in variables, and so
    is part of checkpoints.

    Args:
        spec: `Transitions` of `tf.TypeSpec`.
        slots: Integer, the number of tasks.
        rollouts: Integer, the rollouts of a task.
        steps: Integer, the longest a rollout may be.
    """

    def __init__(self, spec, slots, rollouts, steps):
        super().__init__()
        self._spec = lambda: spec
        self.slots = slots
        self._leaves = [
            tf.Variable(
                tf.zeros([slots, rollouts, steps, *leaf.shape], leaf.dtype),
                trainable=False,
            )
            for leaf in tf.nest.flatten(spec)
        ]
        # How long each rollout is, and how many tasks there were.
        self._lengths = tf.Variable(
            tf.zeros([slots, rollouts], tf.int32), trainable=False
        )
        self._tasks = tf.Variable(0, trainable=False)

    def write(self, transitions, weights):
        """Puts tasks into the oldest slots.

        Args:
            transitions: `Transitions` of `[tasks, rollouts, steps, ...]`.
            weights: Float tensor `[tasks, rollouts, steps]`, 1 until a
                rollout ends, and 0 after that.

        Raises:
            ValueError: Where there are more tasks than slots.
        """
        tasks = weights.shape[0]
        if tasks > self.slots:
            raise ValueError(
                "The memory must have a slot for each task of a step. "
                f"Received: {tasks} tasks, where there are {self.slots} "
                "slots. Raise `slots`, or take fewer tasks."
            )
        slots = (self._tasks + tf.range(tasks))[:, None] % self.slots
        for variable, leaf in zip(self._leaves, tf.nest.flatten(transitions)):
            variable.scatter_nd_update(slots, leaf)
        lengths = tf.cast(tf.reduce_sum(weights, axis=2), tf.int32)
        self._lengths.scatter_nd_update(slots, lengths)
        self._tasks.assign_add(tasks)

    def draw_slots(self, count):
        """Draws slots that hold a task, with replacement.

        Args:
            count: Integer, how many.

        Returns:
            Integer tensor `[count]`.
        """
        filled = tf.minimum(self._tasks, self.slots)
        return tf.random.uniform([count], 0, filled, tf.int32)

    def rollouts(self, slots):
        """Returns all rollouts of slots.

        Args:
            slots: Integer tensor `[tasks]`.

        Returns:
            What was written: `Transitions`, and their weights.
        """
        leaves = [tf.gather(leaf, slots) for leaf in self._leaves]
        steps = self._leaves[0].shape[2]
        weights = tf.sequence_mask(
            tf.gather(self._lengths, slots), steps, tf.float32
        )
        return tf.nest.pack_sequence_as(self._spec(), leaves), weights

    def draw_transitions(self, slots, count):
        """Draws transitions from slots, all with the same chance.

        Args:
            slots: Integer tensor `[tasks]`.
            count: Integer, how many of each, with replacement.

        Returns:
            `Transitions` of tensors `[tasks, count, ...]`.
        """
        ends = tf.cumsum(tf.gather(self._lengths, slots), axis=1)
        shares = tf.random.uniform([slots.shape[0], count])
        total = ends[:, -1:]
        numbers = tf.cast(shares * tf.cast(total, tf.float32), tf.int32)
        # Rounding could make it one more than there are.
        numbers = tf.minimum(numbers, total - 1)
        before = tf.cast(numbers[..., None] >= ends[:, None], tf.int32)
        rollouts = tf.reduce_sum(before, axis=2)
        starts = tf.pad(ends, [[0, 0], [1, 0]])
        steps = numbers - tf.gather(starts, rollouts, batch_dims=1)
        slots = tf.repeat(slots[:, None], count, axis=1)
        index = tf.stack([slots, rollouts, steps], axis=-1)
        leaves = [tf.gather_nd(leaf, index) for leaf in self._leaves]
        return tf.nest.pack_sequence_as(self._spec(), leaves)
