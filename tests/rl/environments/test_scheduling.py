import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from tests.rl.environments import contract


class TestScheduling(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return environments.Scheduling(
            **dict(machines=2, kinds=2, horizon=6, batch_size=4) | settings
        )


def parts_of(family, observation):
    """Returns the jobs `[rows, machines, kinds]`, and the one at hand."""
    observation = np.asarray(observation)
    count = family.machines * family.kinds
    jobs = 10 * observation[:, :count]
    shape = (-1, family.machines, family.kinds)
    return jobs.reshape(shape), observation[:, count:]


def test_jobs_come_are_sent_and_go():
    family = environments.Scheduling(machines=3, kinds=2)
    generator = np.random.default_rng(0)
    # A kind always arrives; some machines are done at once, others never.
    kinds = generator.integers(0, 2, 50)
    tasks = {
        "arrival": np.eye(2, dtype="float32")[kinds],
        "speed": np.repeat(
            generator.integers(0, 2, [50, 3, 1]), 2, axis=2
        ).astype("float32"),
    }
    carry, time_step = family.start(
        tf.nest.map_structure(tf.constant, tasks), tf.constant([1, 2])
    )
    expected = np.zeros([50, 3, 2])
    for _ in range(10):
        jobs, at_hand = parts_of(family, time_step.observation)
        np.testing.assert_allclose(jobs, expected, atol=1e-5)
        np.testing.assert_array_equal(at_hand, tasks["arrival"])
        actions = generator.integers(0, 3, 50).astype("int32")
        carry, time_step = family.advance(carry, tf.constant(actions))
        rows = np.arange(50)
        # One job alone in a fast machine is done within the step.
        expected[rows, actions, kinds] += 1 - tasks["speed"][rows, actions, 0]
        np.testing.assert_allclose(
            time_step.reward, -expected.sum((1, 2)), rtol=1e-5
        )


def test_chances_are_those_of_the_task():
    family = environments.Scheduling(machines=2, kinds=2)
    count = 20000
    tasks = {
        "arrival": tf.constant([[0.2, 0.5]] * count),
        "speed": tf.constant([[[0.7, 0.1], [0.3, 0.4]]] * count),
    }
    rows, _ = family.start(tasks, tf.constant([1, 2]))
    jobs = tf.constant([[[1.0, 0.0], [2.0, 2.0]]] * count)
    nothing = tf.zeros([count, 2])
    rows = rows._replace(state={"jobs": jobs, "at_hand": nothing})
    _, time_step = family.advance(rows, tf.zeros([count], tf.int32))
    left, at_hand = parts_of(family, time_step.observation)
    # The second machine gives half of its time to each kind.
    expected = [[1 - 0.7, 0], [2 - 0.3 / 2, 2 - 0.4 / 2]]
    np.testing.assert_allclose(left.mean(0), expected, atol=0.02)
    np.testing.assert_allclose(at_hand.mean(0), [0.2, 0.5], atol=0.02)


FAMILY = environments.Scheduling()


def returns_of(tasks, rule):
    """Returns what a rule gets: a function of jobs, speeds and the kind."""
    size = FAMILY.machines * FAMILY.kinds

    @tf.function(autograph=False)
    def play(tasks):
        carry, time_step = FAMILY.start(tasks, tf.constant([1, 2]))

        def body(carry, time_step, total):
            jobs = 10 * time_step.observation[:, :size]
            jobs = tf.reshape(jobs, [-1, FAMILY.machines, FAMILY.kinds])
            at_hand = time_step.observation[:, size:]
            speed = tf.reduce_sum(tasks["speed"] * at_hand[:, None], axis=2)
            scores = rule(tf.reduce_sum(jobs, axis=2), speed)
            action = tf.argmin(scores, axis=1, output_type=tf.int32)
            carry, time_step = FAMILY.advance(carry, action)
            return carry, time_step, total + time_step.reward

        return tf.while_loop(
            lambda *_: True,
            body,
            (carry, time_step, tf.zeros_like(time_step.reward)),
            maximum_iterations=FAMILY.horizon,
        )[-1]

    return play(tasks).numpy().mean()


def test_it_pays_to_know_the_task():
    tasks = FAMILY.sample_tasks(2000)
    # What would be done first, which must know the task; and what needs to
    # know nothing.
    delay = returns_of(tasks, lambda jobs, speed: (jobs + 1) / (speed + 1e-6))
    shortest = returns_of(tasks, lambda jobs, speed: jobs)
    anywhere = returns_of(
        tasks, lambda jobs, speed: tf.random.uniform(tf.shape(jobs))
    )
    assert abs(delay + 210) < 15
    assert abs(shortest + 380) < 25
    assert abs(anywhere + 810) < 40


def test_the_machines_can_keep_up():
    tasks = FAMILY.sample_tasks(2000)
    together = np.mean(tasks["speed"], axis=2).sum(1)
    # A speed above 1 would be one of 1.
    assert np.all(together <= 1.00001) and together.mean() > 0.98
    load = np.sum(tasks["arrival"], axis=1)
    assert 0.599 < load.min() < 0.61 and 0.94 < load.max() < 0.951


def test_bad_input():
    with pytest.raises(ValueError, match="2 machines or more.*machines=1"):
        environments.Scheduling(machines=1)
    with pytest.raises(ValueError, match="`kinds` must be an integer of 1"):
        environments.Scheduling(kinds=0)
