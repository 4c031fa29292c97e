import numpy as np
import pytest
import tensorflow as tf

import keras_meta.rl
from keras_meta.rl import rollouts
from keras_meta.rl import task_memory
from keras_meta.rl.environments import PointNavigation

SPEC = task_memory.Transitions(
    tf.TensorSpec([2], tf.float32),
    tf.TensorSpec([1], tf.float32),
    tf.TensorSpec([], tf.float32),
    tf.TensorSpec([], tf.float32),
    tf.TensorSpec([2], tf.float32),
)
SLOTS, ROLLOUTS, STEPS = 4, 2, 3


def tasks_of(numbers):
    """Returns tasks whose rewards tell task, rollout and step as digits."""
    index = np.indices((len(numbers), ROLLOUTS, STEPS))
    reward = 100 * np.array(numbers)[index[0]] + 10 * index[1] + index[2]
    return tf.nest.map_structure(
        lambda spec: tf.constant(
            np.broadcast_to(
                reward.reshape(reward.shape + (1,) * spec.shape.rank),
                reward.shape + tuple(spec.shape),
            ),
            tf.float32,
        ),
        SPEC,
    )


def weights_of(lengths):
    return tf.sequence_mask(lengths, STEPS, tf.float32)


def memory_of(*batches):
    memory = task_memory.TaskMemory(SPEC, SLOTS, ROLLOUTS, STEPS)
    for numbers, lengths in batches:
        memory.write(tasks_of(numbers), weights_of(lengths))
    return memory


def test_the_oldest_tasks_make_room():
    full = [[3, 3]] * 3
    memory = memory_of(([1, 2, 3], full), ([4, 5, 6], full))
    held, weights = memory.rollouts(tf.range(SLOTS))
    found = held.reward[:, 0, 0].numpy() // 100
    np.testing.assert_array_equal(found, [5, 6, 3, 4])
    np.testing.assert_array_equal(weights, 1)


def test_only_slots_that_hold_a_task_are_drawn():
    memory = memory_of(([1, 2, 3], [[3, 3]] * 3))
    drawn = memory.draw_slots(200).numpy()
    assert set(drawn) == {0, 1, 2}
    memory.write(tasks_of([4, 5]), weights_of([[3, 3]] * 2))
    assert set(memory.draw_slots(200).numpy()) == {0, 1, 2, 3}


def test_all_transitions_that_count_are_drawn_and_no_others():
    lengths = [[2, 1], [1, 3], [3, 3]]
    memory = memory_of(([1, 2, 3], lengths))
    slots = tf.constant([2, 0, 1, 0])
    drawn = memory.draw_transitions(slots, 600)
    for row, slot in enumerate(slots.numpy()):
        wanted = {
            100 * (slot + 1) + 10 * rollout + step
            for rollout, length in enumerate(lengths[slot])
            for step in range(length)
        }
        values, counts = np.unique(drawn.reward[row], return_counts=True)
        assert set(values) == wanted
        # All with the same chance.
        assert counts.min() > 0.6 * 600 / len(wanted)
    # The parts of a transition belong together.
    np.testing.assert_array_equal(drawn.observation[..., 1], drawn.reward)
    np.testing.assert_array_equal(drawn.next_observation[..., 0], drawn.reward)
    np.testing.assert_array_equal(drawn.action[..., 0], drawn.reward)


def test_rollouts_come_with_what_counts_of_them():
    memory = memory_of(([1, 2], [[2, 1], [3, 0]]))
    _, weights = memory.rollouts(tf.constant([1]))
    np.testing.assert_array_equal(weights, [[[1, 1, 1], [0, 0, 0]]])


def test_more_tasks_than_slots_are_an_error():
    with pytest.raises(ValueError, match="a slot for each task.*Received: 5"):
        memory_of((range(5), [[3, 3]] * 5))


def test_transitions_show_what_followed_and_how_it_ended():
    # A radius around all goals: each rollout ends, for good, with a step.
    ended = PointNavigation(radius=2.0, horizon=3)
    going = PointNavigation(radius=0.0, horizon=3)
    policy = keras_meta.rl.agents.ppo(going, epochs=1).collect_policy
    for environment, length, discount in ((ended, 1, 0), (going, 3, 1)):
        tasks = environment.sample_tasks(2)
        experience, _ = rollouts.collect(environment, policy, tasks, steps=4)
        transitions, weights = task_memory.transitions_of(experience)
        np.testing.assert_array_equal(
            tf.reduce_sum(weights, axis=1), [length] * 2
        )
        last = length - 1
        np.testing.assert_array_equal(transitions.discount[:, last], discount)
        action = np.clip(transitions.action[:, last], -0.1, 0.1)
        # At the end, too, and not where the next rollout begins.
        np.testing.assert_allclose(
            transitions.next_observation[:, last],
            transitions.observation[:, last] + action,
            atol=1e-6,
        )
