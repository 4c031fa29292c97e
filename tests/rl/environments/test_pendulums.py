import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from tests.rl.environments import contract


class TestPendulums(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return environments.Pendulums(
            **dict(horizon=6, batch_size=4) | settings
        )


def test_it_swings_as_that_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium")
    family = environments.Pendulums(mass=(1.0, 1.0), length=(1.0, 1.0))
    carry, time_step = family.start(family.sample_tasks(1), tf.constant([1, 2]))
    reference = gymnasium.make("Pendulum-v1").unwrapped
    reference.reset(seed=0)
    state = carry.state
    reference.state = np.array(
        [state["angle"][0], state["speed"][0]], "float64"
    )
    generator = np.random.default_rng(0)
    for _ in range(150):
        # Some of them out of bounds.
        action = generator.uniform(-3.0, 3.0, [1]).astype("float32")
        carry, time_step = family.advance(carry, tf.constant(action[None]))
        observation, reward, *_ = reference.step(action)
        np.testing.assert_allclose(
            time_step.observation[0], observation, atol=2e-3
        )
        np.testing.assert_allclose(time_step.reward[0], reward, atol=2e-2)


def test_pendulums_differ():
    family = environments.Pendulums()
    tasks = family.sample_tasks(1000)
    for values in tasks.values():
        assert 0.7 <= np.min(values) < 0.71 < 1.29 < np.max(values) <= 1.3
    state = {"angle": tf.ones([2]), "speed": tf.zeros([2])}
    # A heavier one is moved less, and one of twice the length falls slower.
    tasks = {"mass": tf.constant([1.0, 2.0]), "length": tf.constant([1.0, 2.0])}
    moved, _, ended = family.transition(state, tf.ones([2, 1]), tasks, None)
    gravity = 0.05 * 15 * np.sin(1.0)
    np.testing.assert_allclose(
        moved["speed"], [gravity + 0.15, gravity / 2 + 0.15 / 8], rtol=1e-5
    )
    assert not np.any(ended)


@pytest.mark.parametrize("mass", [(0.0, 1.0), (2.0, 1.0), 1.0, (1.0, np.inf)])
def test_limits_that_are_none_are_refused(mass):
    with pytest.raises(ValueError, match="`mass` must be two .*Received"):
        environments.Pendulums(mass=mass)
