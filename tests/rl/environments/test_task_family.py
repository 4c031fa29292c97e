import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import random_tf_policy

from keras_meta.rl import environments
from keras_meta.rl import rollouts
from keras_meta.rl.environments import task_family
from tests.rl.environments import contract


class Thermostats(environments.GraphTaskFamily):
    """The example of the docstring, with faults to choose from."""

    def __init__(self, fault=None, horizon=5, batch_size=1, seed=0):
        self.fault = fault
        super().__init__(
            tf.TensorSpec([1], tf.float32),
            task_family.bounded([1], -1.0, 1.0),
            task_spec=tf.TensorSpec([1], tf.float32),
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        tasks = tf.random.stateless_uniform([count, 1], seed, 0.1, 0.9)
        faulty = {
            "structure": {"loss": tasks},
            "shape": tf.concat([tasks, tasks], axis=-1),
            "dtype": tf.cast(tasks, tf.float64),
            "count": tasks[1:],
        }
        return faulty.get(self.fault, tasks)

    def initial_state(self, tasks, seed):
        return tf.zeros_like(tasks)

    def transition(self, state, actions, tasks, seed):
        state = state - tasks + actions
        reward = -tf.abs(state[:, 0])
        if self.fault == "reward":
            reward = tf.math.log(reward)
        return state, reward, tf.zeros_like(reward, tf.bool)

    def observe(self, state, tasks):
        return state


class TestThermostats(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return Thermostats(**dict(batch_size=4) | settings)


def test_rewards_that_are_not_finite_are_refused_with_the_family():
    family = Thermostats("reward")
    policy = random_tf_policy.RandomTFPolicy(
        family.time_step_spec(), family.action_spec()
    )
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match="must be finite. Received: NaN or Inf from Thermostats",
    ):
        rollouts.collect(family, policy, family.sample_tasks(3))


@pytest.mark.parametrize("fault", ["structure", "shape", "dtype", "count"])
def test_tasks_that_are_not_what_the_family_says_are_refused(fault):
    received = {
        "structure": "'loss': 'float32 .3, 1.'",
        "shape": "float32 .3, 2.",
        "dtype": "float64 .3, 1.",
        "count": "float32 .2, 1.",
    }
    with pytest.raises(
        ValueError,
        match=r"`draw_tasks\(\)` of Thermostats must return .* Received: .*"
        + received[fault],
    ):
        Thermostats(fault).sample_tasks(3)


def test_families_and_seeds_have_tasks_of_their_own():
    class Others(Thermostats):
        pass

    tasks = Thermostats().sample_tasks(3)
    assert not np.any(np.equal(tasks, Others().sample_tasks(3)))
    assert not np.any(np.equal(tasks, Thermostats(seed=1).sample_tasks(3)))


def test_rows_of_one_task_stand_together():
    family = Thermostats()
    rows = task_family.rows_of(family, [[1.0], [2.0]], 4)
    np.testing.assert_array_equal(rows, [[1.0], [1.0], [2.0], [2.0]])
    rows = task_family.rows_of(family, [3.0], 2)
    np.testing.assert_array_equal(rows, [[3.0], [3.0]])
    with pytest.raises(ValueError, match=r"Received: tasks of shape \(3, 1\)"):
        task_family.rows_of(family, np.ones([3, 1]), 4)


def test_a_driver_need_not_reset_first():
    family = Thermostats(batch_size=2)
    assert np.all(family.current_time_step().step_type == 0)
    assert np.all(family.step([[1.0], [1.0]]).step_type == 1)
    family.set_tasks([0.5])
    family.reset()
    np.testing.assert_allclose(
        family.step([[0.0], [0.0]]).observation, [[-0.5], [-0.5]]
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Thermostats(horizon=0), "`horizon` must be an integer"),
        (lambda: Thermostats(batch_size=0), "`batch_size` must be an integer"),
        (lambda: Thermostats(seed=-1), "`seed` must be an integer of 0"),
        (lambda: Thermostats().sample_tasks(0), "`count` must be an integer"),
        (lambda: Thermostats().sample_tasks(1, "dev"), "`split` must be one"),
        (lambda: Thermostats().tasks(0), "`meta_batch_size` must be an"),
        (lambda: Thermostats().tasks(1, "dev"), "`split` must be one of"),
        (lambda: Thermostats().tasks(1, batches=0), "`batches` must be an"),
        (lambda: Thermostats().tasks(1, seed=-1), "`seed` must be an integer"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        call()


def test_hooks_that_are_missing_are_named():
    spec = tf.TensorSpec([1], tf.float32)
    settings = (spec, task_family.bounded([1], -1, 1), spec, 5)
    family = environments.TaskFamily(*settings)
    for call, name in (
        (lambda: family.sample_tasks(1), "draw_tasks"),
        (lambda: family.start(None, None), "start"),
        (lambda: family.advance(None, None), "advance"),
        (lambda: family.restart(None, None, None), "restart"),
    ):
        with pytest.raises(NotImplementedError, match=f"TaskFamily.*{name}"):
            call()
    graph = environments.GraphTaskFamily(*settings)
    for call, name in (
        (lambda: graph.initial_state(None, None), "initial_state"),
        (lambda: graph.transition(None, None, None, None), "transition"),
        (lambda: graph.observe(None, None), "observe"),
    ):
        with pytest.raises(NotImplementedError, match=name):
            call()
