import numpy as np
import pytest
import tensorflow as tf

import keras_meta.rl
from keras_meta.rl import latent_belief
from keras_meta.rl.environments import PointNavigation
from keras_meta.rl.latent_policy import LatentPolicy

POINTS = PointNavigation(batch_size=3)
NETWORK = keras_meta.rl.KerasDistributionNetwork(
    tf.TensorSpec([4], tf.float32),
    POINTS.action_spec(),
    keras_meta.backbones.mlp((4,), (8,), outputs=None),
    head="squashed",
)


def make(**settings):
    return LatentPolicy(
        POINTS.time_step_spec(), POINTS.action_spec(), NETWORK, 2, **settings
    )


def test_each_row_acts_on_a_guess_of_its_own_that_stays():
    policy = make(greedy=True)
    state = policy.get_initial_state(3)
    assert len(np.unique(state[:, 0])) == 3
    step = POINTS.reset()
    decision = policy.action(step, state)
    # All at the same place.
    assert len(np.unique(decision.action[:, 0])) == 3
    np.testing.assert_array_equal(decision.state, state)
    again = policy.action(POINTS.reset(), decision.state)
    np.testing.assert_array_equal(again.action, decision.action)
    distribution, _ = NETWORK(tf.concat([step.observation, state], axis=1))
    np.testing.assert_array_equal(decision.action, distribution.mode())
    assert not np.allclose(make().action(step, state).action, decision.action)


def test_guesses_are_drawn_from_the_belief():
    belief = latent_belief.Belief(
        tf.constant([[3.0, -1.0]]), tf.constant([[1e-8, 4.0]])
    )
    state = make(belief=belief).get_initial_state(4000).numpy()
    np.testing.assert_allclose(state.mean(0), [3.0, -1.0], atol=0.15)
    np.testing.assert_allclose(state.std(0), [1e-4, 2.0], rtol=0.1)
    assert make(belief=belief).get_initial_state(None).shape == (2,)
    prior = make().get_initial_state(4000).numpy()
    np.testing.assert_allclose(prior.std(0), 1.0, rtol=0.1)


def test_it_has_no_distribution():
    policy = make()
    with pytest.raises(NotImplementedError, match="not their distribution"):
        policy.distribution(POINTS.reset(), policy.get_initial_state(3))
