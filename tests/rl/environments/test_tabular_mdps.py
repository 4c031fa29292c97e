import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from tests.rl.environments import contract


class TestTabularMDPs(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return environments.TabularMDPs(
            **dict(states=4, actions=3, horizon=6, batch_size=4) | settings
        )


def test_states_and_rewards_follow_the_tables():
    family = environments.TabularMDPs(states=4, actions=2)
    task = family.sample_task()
    rows = 20000
    tasks = tf.nest.map_structure(
        lambda leaf: tf.repeat(leaf[None], rows, axis=0), task
    )
    generator = np.random.default_rng(0)
    carry, time_step = family.start(tasks, tf.constant([1, 2]))
    states = np.argmax(time_step.observation, axis=1)
    assert (states == 0).all()
    for _ in range(2):
        actions = generator.integers(0, 2, rows).astype("int32")
        carry, time_step = family.advance(carry, tf.constant(actions))
        after = np.argmax(time_step.observation, axis=1)
        for state in np.unique(states):
            for action in (0, 1):
                here = (states == state) & (actions == action)
                rewards = time_step.reward.numpy()[here]
                limit = 4 / np.sqrt(here.sum())
                mean = task["rewards"][state, action]
                assert abs(rewards.mean() - mean) < limit
                assert abs(rewards.std() - 1) < limit
                chances = task["transitions"][state, action].numpy()
                counts = np.bincount(after[here], minlength=4)
                expected = chances * here.sum()
                # Chi-square of 3 degrees: one in 100,000 is beyond 26.
                assert np.sum((counts - expected) ** 2 / expected) < 26
        states = after


def test_tables_are_drawn_as_described():
    tasks = environments.TabularMDPs().sample_tasks(2000)
    rewards, chances = tasks["rewards"].numpy(), tasks["transitions"].numpy()
    np.testing.assert_allclose(chances.sum(-1), 1.0, atol=1e-5)
    assert abs(rewards.mean() - 1) < 0.02
    assert abs(rewards.std() - 1) < 0.02
    # A share of a flat Dirichlet distribution of 10 has a beta distribution.
    assert abs(chances.mean() - 0.1) < 0.001
    assert abs(chances.var() - 0.1 * 0.9 / 11) < 0.0002


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="`states` must be an integer of 1"):
        environments.TabularMDPs(states=0)
    with pytest.raises(ValueError, match="`actions` must be an integer of 1"):
        environments.TabularMDPs(actions=2.5)
