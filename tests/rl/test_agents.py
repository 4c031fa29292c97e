import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta.rl
from keras_meta.rl import agents
from keras_meta.rl.environments import PointNavigation
from keras_meta.rl.environments import TabularMDPs

POINTS = PointNavigation(reward="distance", horizon=3, batch_size=4)
TABLES = TabularMDPs(states=2, actions=3, horizon=3, batch_size=4)
BUILT = {
    "ppo": lambda: agents.ppo(POINTS, epochs=1),
    "ppo, discrete": lambda: agents.ppo(TABLES, epochs=1),
    "reinforce": lambda: agents.reinforce(POINTS),
    "reinforce, discrete": lambda: agents.reinforce(TABLES),
    "dqn": lambda: agents.dqn(TABLES),
    "ddpg": lambda: agents.ddpg(POINTS),
    "td3": lambda: agents.td3(POINTS),
    "sac": lambda: agents.sac(POINTS),
}


@pytest.mark.parametrize("name", BUILT)
def test_an_agent_takes_a_step_that_changes_all_its_networks(name):
    agent = BUILT[name]()
    environment = TABLES if "dqn" in name or "discrete" in name else POINTS
    agent.initialize()
    tasks = environment.sample_tasks(4)
    driver = keras_meta.rl.RolloutDriver(environment, agent.collect_policy)
    experience, _ = tf.function(driver.run, autograph=False)(tasks)
    if agent.train_sequence_length is not None:
        # Not the first: points start at 0, where ReLU has no gradient.
        experience = tf.nest.map_structure(lambda leaf: leaf[:, 1:], experience)
    before = [v.numpy() for v in agent.trainable_variables]
    for _ in range(2):
        # The target networks follow, and TD3's actor every second time.
        loss = agent.train(experience).loss
    assert np.isfinite(loss)
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, agent.trainable_variables)
    ]
    assert changed == [True] * len(changed)
    assert len(changed) >= 6
    # Nothing is counted in common.
    assert BUILT[name]().train_step_counter.numpy() == 0


@pytest.mark.parametrize("make", [agents.ddpg, agents.td3])
def test_rollouts_in_one_task_have_noise_of_their_own(make):
    agent = make(POINTS, noise=0.5)
    step = POINTS.reset()
    mean = agent.policy.action(step).action.numpy()
    noise = agent.collect_policy.action(step).action.numpy() - mean
    assert len(np.unique(noise[:, 0])) == 4
    assert np.all(np.abs(mean + noise) <= 0.1 + 1e-6)
    silent = make(POINTS, noise=0.0)
    np.testing.assert_array_equal(
        silent.policy.action(step).action,
        silent.collect_policy.action(step).action,
    )


def test_networks_get_copies_of_a_given_model():
    model = keras_meta.backbones.mlp((2,), (5,), outputs=None)
    critic = keras_meta.backbones.mlp((4,), (7,), outputs=None)
    agent = agents.ddpg(POINTS, model, critic)
    shapes = {tuple(v.shape) for v in agent.trainable_variables}
    assert shapes >= {(2, 5), (5, 2), (4, 7), (7, 1)}
    own = {v.value.ref() for v in model.variables + critic.variables}
    assert own.isdisjoint(v.ref() for v in agent.variables)
    agent = agents.ppo(POINTS, model)
    kernels = [v for v in agent.trainable_variables if v.shape == (2, 5)]
    # One for the policy and one for the values.
    assert len(kernels) == 2
    assert not np.array_equal(*kernels)


def test_what_an_agent_cannot_take_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="real, with bounds.*Received: action"):
        agents.sac(TABLES)
    with pytest.raises(ValueError, match="real actions with bounds"):
        agents.ddpg(TABLES)
    with pytest.raises(ValueError, match="one integer from 0"):
        agents.dqn(POINTS)
    with pytest.raises(ValueError, match="`epochs` must be an integer of 1"):
        agents.ppo(POINTS, epochs=0)
    with pytest.raises(ValueError, match="`noise` must be a finite number"):
        agents.td3(POINTS, noise=-1)
    with pytest.raises(ValueError, match="`learning_rate` must be"):
        agents.dqn(TABLES, learning_rate=0)
    with pytest.raises(ValueError, match="`target_rate` must be"):
        agents.sac(POINTS, target_rate=2)
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`"):
        agents.ppo(POINTS, model=3)
    with pytest.raises(ValueError, match="`model` must be built"):
        agents.ppo(POINTS, keras.Sequential([keras.layers.Dense(3)]))
