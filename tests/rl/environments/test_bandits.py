import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from tests.rl.environments import contract


class TestBandits(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return environments.Bandits(
            **dict(arms=3, horizon=6, batch_size=4) | settings
        )


def test_an_arm_pays_as_often_as_its_chance_says():
    family = environments.Bandits(arms=3)
    chances = [0.0, 0.3, 1.0]
    tasks = tf.constant([chances] * 30000)
    arms = np.tile([0, 1, 2], 10000)
    carry, _ = family.start(tasks, tf.constant([1, 2]))
    paid = []
    for _ in range(2):
        carry, time_step = family.advance(carry, tf.constant(arms))
        paid.append(time_step.reward.numpy())
    assert set(np.unique(paid)) == {0.0, 1.0}
    for arm, chance in enumerate(chances):
        # Four deviations of a mean of 10,000.
        deviation = 4 * np.sqrt(chance * (1 - chance) / 10000)
        for reward in paid:
            assert abs(reward[arms == arm].mean() - chance) <= deviation
    # Steps draw anew.
    drawn = arms == 1
    assert 0.3 < np.mean(paid[0][drawn] != paid[1][drawn]) < 0.55


def test_chances_are_uniform():
    chances = environments.Bandits(arms=2).sample_tasks(10000).numpy()
    np.testing.assert_allclose(
        np.quantile(chances, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02
    )


def test_one_arm_is_refused():
    with pytest.raises(ValueError, match="2 arms or more. Received: arms=1"):
        environments.Bandits(arms=1)
