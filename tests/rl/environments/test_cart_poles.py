import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from tests.rl.environments import contract


class TestCartPoles(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return environments.CartPoles(
            **dict(horizon=6, batch_size=4) | settings
        )


def test_it_moves_and_falls_as_that_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium")
    family = environments.CartPoles(mass=(0.1, 0.1), half_length=(0.5, 0.5))
    reference = gymnasium.make("CartPole-v1").unwrapped
    generator = np.random.default_rng(0)
    lengths = []
    for seed in range(5):
        reference.reset(seed=seed)
        carry, _ = family.start(family.sample_tasks(1), tf.constant([1, seed]))
        reference.state = carry.state[0].numpy().astype("float64")
        ended = False
        while not ended:
            right = int(generator.integers(2))
            action = tf.constant([[2.0 * right - 1.0]])
            carry, time_step = family.advance(carry, action)
            observation, reward, ended, *_ = reference.step(right)
            np.testing.assert_allclose(
                time_step.observation[0], observation, atol=1e-4
            )
            assert time_step.reward[0] == reward == 1.0
            assert (time_step.step_type[0] == 2) == ended
            lengths.append(1)
        assert time_step.discount[0] == 0.0
    assert len(lengths) > 50


def test_forces_are_shares_and_tasks_differ():
    family = environments.CartPoles()
    tasks = family.sample_tasks(1000)
    assert 0.05 <= np.min(tasks["mass"]) < 0.06
    assert 0.99 < np.max(tasks["half_length"]) <= 1.0
    two = {
        "mass": tf.constant([0.1] * 2),
        "half_length": tf.constant([0.5] * 2),
    }
    moved, *_ = family.transition(
        tf.zeros([2, 4]), tf.constant([[0.5], [7.0]]), two, None
    )
    np.testing.assert_allclose(moved[1, 1], 2 * moved[0, 1], rtol=1e-5)


def test_limits_that_are_none_are_refused():
    with pytest.raises(ValueError, match="`half_length` must be .*Received"):
        environments.CartPoles(half_length=(1.0, 0.5))
