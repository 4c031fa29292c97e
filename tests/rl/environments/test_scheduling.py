import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from tests.rl.environments import contract


class TestScheduling(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return environments.Scheduling(
            **dict(kinds=2, horizon=6, batch_size=4) | settings
        )


def test_jobs_come_wait_and_go():
    family = environments.Scheduling(kinds=3, backlog=1)
    generator = np.random.default_rng(0)
    # Chances of 0 and 1, so that nothing is left to chance.
    tasks = {
        "arrival": generator.integers(0, 2, [50, 3]).astype("float32"),
        "service": generator.integers(0, 2, [50, 3]).astype("float32"),
        "cost": generator.uniform(size=[50, 3]).astype("float32"),
    }
    carry, time_step = family.start(
        tf.nest.map_structure(tf.constant, tasks), tf.constant([1, 2])
    )
    jobs = np.ones([50, 3])
    for _ in range(10):
        np.testing.assert_allclose(time_step.observation, jobs / 10)
        actions = generator.integers(0, 3, 50).astype("int32")
        carry, time_step = family.advance(carry, tf.constant(actions))
        for row, kind in enumerate(actions):
            if jobs[row, kind] > 0:
                jobs[row, kind] -= tasks["service"][row, kind]
        jobs += tasks["arrival"]
        np.testing.assert_allclose(
            time_step.reward, -(tasks["cost"] * jobs).sum(1), rtol=1e-5
        )


def test_chances_are_those_of_the_task():
    family = environments.Scheduling(kinds=2, backlog=1)
    task = {"arrival": [0.2, 0.5], "service": [0.7, 0.1], "cost": [1.0, 1.0]}
    tasks = {name: tf.constant([value] * 20000) for name, value in task.items()}
    carry, _ = family.start(tasks, tf.constant([1, 2]))
    _, time_step = family.advance(carry, tf.zeros([20000], tf.int32))
    jobs = 10 * time_step.observation.numpy()
    np.testing.assert_allclose(
        jobs.mean(0), [1 + 0.2 - 0.7, 1 + 0.5], atol=0.02
    )


FAMILY = environments.Scheduling()


@tf.function(autograph=False, reduce_retracing=True)
def returns_of(tasks, priority=None):
    """Returns what a rule gets: of the kinds that are there, serve that for
    which a number is the highest, or the one with the longest queue."""
    carry, time_step = FAMILY.start(tasks, tf.constant([1, 2]))

    def body(carry, time_step, total):
        jobs = time_step.observation
        if priority is not None:
            jobs = tf.where(jobs > 0, priority, -1.0)
        action = tf.argmax(jobs, axis=-1, output_type=tf.int32)
        carry, time_step = FAMILY.advance(carry, action)
        return carry, time_step, total + time_step.reward

    return tf.while_loop(
        lambda *_: True,
        body,
        (carry, time_step, tf.zeros_like(time_step.reward)),
        maximum_iterations=FAMILY.horizon,
    )[-1]


ORDERS = [
    tf.repeat(tf.constant([order]), 2000, axis=0)
    for order in itertools.permutations([1.0, 2.0, 3.0])
]


def test_the_best_rule_differs_from_task_to_task():
    tasks = FAMILY.sample_tasks(2000)
    known = returns_of(tasks, tasks["cost"] * tasks["service"]).numpy().mean()
    longest = returns_of(tasks).numpy().mean()
    # The cμ rule, which must know the task, and what needs to know nothing.
    assert abs(known + 384) < 15
    assert abs(longest + 548) < 20
    for order in ORDERS:
        assert abs(returns_of(tasks, order).numpy().mean() + 575) < 25


def test_the_optimal_rule_is_best_in_each_task():
    for seed in range(3):
        tasks = tf.nest.map_structure(
            lambda leaf: tf.repeat(leaf, 2000, axis=0),
            FAMILY.sample_tasks(1, seed=seed),
        )
        best = returns_of(tasks, tasks["cost"] * tasks["service"]).numpy()
        for order in ORDERS:
            other = returns_of(tasks, order).numpy()
            spread = np.sqrt((best.var() + other.var()) / 2000)
            assert best.mean() > other.mean() - 4 * spread


def test_machines_can_keep_up():
    tasks = environments.Scheduling().sample_tasks(2000)
    load = np.sum(tasks["arrival"] / tasks["service"], axis=1)
    assert 0.599 < load.min() < 0.61 and 0.94 < load.max() < 0.951


def test_bad_input():
    with pytest.raises(ValueError, match="2 kinds of jobs.*kinds=1"):
        environments.Scheduling(kinds=1)
    with pytest.raises(ValueError, match="`backlog` must be an integer of 0"):
        environments.Scheduling(backlog=-1)
