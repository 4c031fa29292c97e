"""Windows of rollouts: what agents off policy are trained on."""

import tensorflow as tf
from tf_agents.trajectories import time_step as time_steps


def starts(memory, filled, length):
    """Tells where a window of steps that follow each other may begin.

    No window goes over the end of a rollout and into the next: not all agents
    of TF-Agents leave out that step, which is none.

    Args:
        memory: A `Trajectory` of tensors `[iterations, rows, steps, ...]`.
        filled: Integer, how many of the iterations there are so far.
        length: Integer, the steps of a window.

    Returns:
        Integer tensor `[places, 3]`: iteration, row and step.
    """
    ends = tf.equal(memory.step_type[:filled], time_steps.StepType.LAST)
    places = ends.shape[-1] - length + 1
    within = [ends[..., n : n + places] for n in range(length - 1)]
    over = tf.reduce_any(tf.stack(within), axis=0)
    return tf.cast(tf.where(~over), tf.int32)


def gather(memory, places, length):
    """Returns windows of a memory.

    Args:
        memory: A `Trajectory` of tensors `[iterations, rows, steps, ...]`.
        places: Integer tensor `[windows, 3]`, some of `starts()`.
        length: Integer, the steps of a window.

    Returns:
        A `Trajectory` of tensors `[windows, length, ...]`.
    """
    along = tf.stack([[0, 0, step] for step in range(length)])
    index = places[:, None] + along
    return tf.nest.map_structure(lambda leaf: tf.gather_nd(leaf, index), memory)
