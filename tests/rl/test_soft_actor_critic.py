import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from keras_meta.rl.environments.task_family import bounded
from keras_meta.rl.soft_actor_critic import SoftActorCritic

STATE = tf.TensorSpec([3], tf.float32)
# Not around 0, and of two lengths.
ACTION = bounded([2], [-1.0, 0.0], [3.0, 0.5])
CENTER, REACH = np.array([1.0, 0.25]), np.array([2.0, 0.25])
STATES = tf.random.stateless_normal([5, 3], [1, 2])


def make(**settings):
    settings = {
        "actor_model": None,
        "critic_model": None,
        "discount": 0.9,
        "target_rate": 0.25,
        "temperature": 0.3,
        "target_entropy": "auto",
        **settings,
    }
    return SoftActorCritic(STATE, ACTION, **settings)


def test_actions_have_the_density_of_tensorflow_probability():
    learner = make()
    action, log_probability = learner._decide(STATES)
    units = (action - CENTER) / REACH
    assert np.all(np.abs(units) < 1)
    np.testing.assert_allclose(learner.in_units(action), units, atol=1e-6)
    mean, log_deviation = learner.actor.model(STATES)
    wanted = tfp.distributions.TransformedDistribution(
        tfp.distributions.MultivariateNormalDiag(mean, tf.exp(log_deviation)),
        tfp.bijectors.Tanh(),
    ).log_prob(tf.cast(units, tf.float32))
    np.testing.assert_allclose(log_probability, wanted, rtol=1e-3, atol=1e-3)


def fixed(learner, monkeypatch):
    """Makes the learner draw the same actions each time."""
    action, log_probability = learner._decide(STATES)
    monkeypatch.setattr(
        learner, "_decide", lambda state: (action, log_probability)
    )
    return action, log_probability.numpy()


def values(critics, action):
    units = tf.cast((action - CENTER) / REACH, tf.float32)
    return [critic.model((STATES, units)).numpy()[:, 0] for critic in critics]


def test_targets_are_those_by_hand(monkeypatch):
    learner = make()
    action, log_probability = fixed(learner, monkeypatch)
    reward = np.arange(5, dtype="float32")
    # The third one has come to an end; the others go on, at a horizon too.
    discount = np.array([1, 1, 0, 1, 1], "float32")
    found = learner.target_values(reward, discount, STATES)
    lowest = np.minimum(*values(learner.targets, action))
    wanted = reward + 0.9 * discount * (lowest - 0.3 * log_probability)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert found[2] == reward[2]


def test_losses_are_those_by_hand(monkeypatch):
    learner = make(target_entropy=-3.0)
    action, log_probability = fixed(learner, monkeypatch)
    one, other = values(learner.critics, action)
    wanted = np.linspace(-1, 1, 5).astype("float32")
    np.testing.assert_allclose(
        learner.critic_loss(STATES, action, wanted),
        np.mean((one - wanted) ** 2) + np.mean((other - wanted) ** 2),
        rtol=1e-5,
    )
    actor = np.mean(0.3 * log_probability - np.minimum(one, other))
    temperature = -np.log(0.3) * (log_probability.mean() - 3.0)
    np.testing.assert_allclose(
        learner.actor_loss(STATES), actor + temperature, rtol=1e-4
    )


def test_the_temperature_grows_where_entropy_is_missing():
    for target, sign in ((50.0, -1), (-50.0, 1)):
        learner = make(target_entropy=target)
        *_, logarithm = learner.actor_variables
        with tf.GradientTape() as tape:
            loss = learner.actor_loss(STATES)
        assert np.sign(tape.gradient(loss, logarithm.value)) == sign
    stays = make(target_entropy=None)
    assert len(stays.actor_variables) == len(learner.actor_variables) - 1
    np.testing.assert_allclose(stays.temperature, 0.3, rtol=1e-6)


def test_targets_begin_as_the_critics_and_follow_them():
    learner = make()
    before = [v.numpy() for v in learner.targets[0].variables]
    for old, variable in zip(before, learner.critics[0].variables):
        np.testing.assert_array_equal(old, variable)
        variable.assign_add(tf.ones_like(variable))
    learner.follow()
    for old, variable in zip(before, learner.targets[0].variables):
        np.testing.assert_allclose(variable, old + 0.25, rtol=1e-6)
    one, other = [critic.model.get_weights()[0] for critic in learner.critics]
    assert not np.array_equal(one, other)


def test_given_models_are_copied():
    models = {
        "actor_model": keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(7)]
        ),
        "critic_model": keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(6)]
        ),
    }
    learner = make(**models)
    assert (3, 7) in [tuple(v.shape) for v in learner.actor_variables]
    kernels = [v for v in learner.critic_variables if v.shape == (5, 6)]
    assert len(kernels) == 2
    given = {v.path for model in models.values() for v in model.variables}
    own = {id(v) for v in learner.actor_variables + learner.critic_variables}
    assert given and not own & {
        id(v) for model in models.values() for v in model.variables
    }


def test_bad_arguments_are_refused():
    for message, settings in (
        ("`discount` must be", {"discount": 2}),
        ("`target_rate` must be", {"target_rate": -1}),
        ("`temperature` must be", {"temperature": 0}),
        ("`target_entropy` must be", {"target_entropy": "high"}),
    ):
        with pytest.raises(ValueError, match=message):
            make(**settings)
    for spec in (bounded([], 0, 3, tf.int32), tf.TensorSpec([2], tf.float32)):
        with pytest.raises(ValueError, match="one real vector with bounds"):
            SoftActorCritic(STATE, spec, None, None, 0.9, 0.1, 0.1, "auto")
