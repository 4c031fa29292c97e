import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.policies import policy_saver

import keras_meta
import keras_meta.rl
from keras_meta.rl import heads
from keras_meta.rl import rollouts
from keras_meta.rl.environments import trials as trials_module

TASKS = 6


def bandit_trials(count=4):
    bandits = keras_meta.rl.environments.Bandits(arms=3, horizon=1)
    return keras_meta.rl.environments.Trials(bandits, rollouts=count)


def navigation_trials():
    navigation = keras_meta.rl.environments.PointNavigation(horizon=3)
    return keras_meta.rl.environments.Trials(navigation, rollouts=2)


def make_agent(trials, **settings):
    settings = {
        "cell": keras.layers.GRUCell(4),
        "optimizer": keras.optimizers.Adam(0.01),
        "epochs": 1,
        **settings,
    }
    return keras_meta.rl.RL2Agent(
        trials.time_step_spec(), trials.action_spec(), **settings
    )


def collect(agent, trials, **settings):
    tasks = trials.sample_tasks(TASKS)
    function = tf.function(
        lambda: agent.collect(trials, tasks, **settings), autograph=False
    )
    return function()


def test_the_policy_acts_as_the_network_sees_the_whole_trial():
    # Two rollouts, and the memory survives the end of the first.
    trials = navigation_trials()
    agent = make_agent(trials, cell=keras.layers.LSTMCell(4))
    for variable in agent.outer_variables:
        # Policies start with hardly any opinion.
        variable.assign(tf.random.normal(variable.shape))
    experience = collect(agent, trials, greedy=True)
    distribution, _, _ = agent._look(experience)
    np.testing.assert_allclose(
        experience.action, distribution.mode(), atol=1e-5
    )
    forgetful = np.where(np.arange(6) == 3, 0, experience.step_type.numpy())
    other, _, _ = agent._look(
        experience._replace(step_type=tf.constant(forgetful, tf.int32))
    )
    assert not np.allclose(other.mode(), distribution.mode(), atol=1e-5)


def test_the_memory_is_cleared_between_trials():
    trials = bandit_trials()
    agent = make_agent(trials)
    tasks = trials.sample_tasks(TASKS)
    function = tf.function(
        lambda: rollouts.collect(
            trials, agent.policy, tasks, steps=2 * trials.horizon + 1
        ),
        autograph=False,
    )
    experience, _ = function()
    # The step after the last one is the beginning of the next trial.
    starts = experience.step_type[0].numpy() == 0
    assert np.flatnonzero(starts).tolist() == [0, 5]
    np.testing.assert_array_equal(
        experience.action[:, 0], experience.action[:, 5]
    )
    np.testing.assert_array_equal(experience.observation[:, 5], 0)


def test_a_step_of_training_is_that_of_ppo_by_hand():
    trials = bandit_trials()
    agent = make_agent(
        trials,
        optimizer=keras.optimizers.SGD(1.0),
        entropy=0.3,
        discount=0.9,
        decay=0.5,
        value_weight=2.0,
        prediction_weight=0.7,
    )
    for variable in agent.outer_variables:
        # What is expected starts from nothing.
        drawn = tf.random.stateless_normal(variable.shape, [0, 1])
        variable.assign(0.3 * drawn)
    experience = collect(agent, trials)
    before = [tf.identity(v.value) for v in agent.outer_variables]
    distribution, rates, _ = agent._look(experience)
    # The values: a reward for each step left, of which there are 4.
    left = np.array([1 + 0.9 + 0.81 + 0.729, 1 + 0.9 + 0.81, 1.9, 1.0])
    values = rates.numpy() * left
    reward = experience.reward.numpy()
    advantage = np.zeros_like(reward)
    returns = np.zeros_like(reward)
    following = after = total = np.zeros(TASKS)
    for step in reversed(range(4)):
        error = reward[:, step] + 0.9 * following - values[:, step]
        after = error + 0.9 * 0.5 * after
        advantage[:, step] = after
        following = values[:, step]
        total = reward[:, step] + 0.9 * total
        returns[:, step] = total
    target = returns / left
    scaled = (advantage - advantage.mean()) / advantage.std()
    old = distribution.log_prob(experience.action)
    with tf.GradientTape() as tape:
        outputs, _ = agent._network()(
            experience.observation, experience.step_type
        )
        _, rates, by_action = outputs
        rates = rates[..., 0]
        foretold = tf.gather(by_action, experience.action, batch_dims=2)
        distribution, _, _ = agent._look(experience)
        ratio = tf.exp(distribution.log_prob(experience.action) - old)
        loss = (
            -tf.reduce_mean(ratio * scaled)
            + 2.0 * tf.reduce_mean((rates - target) ** 2) / target.var()
            + 0.7 * tf.reduce_mean((foretold - reward) ** 2) / reward.var()
            - 0.3 * tf.reduce_mean(distribution.entropy())
        )
    gradients = tape.gradient(loss, [v.value for v in agent.outer_variables])
    info = tf.function(agent.train, autograph=False)(experience)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-4)
    for variable, old, gradient in zip(
        agent.outer_variables, before, gradients
    ):
        np.testing.assert_allclose(
            variable, old - gradient, rtol=1e-4, atol=1e-5
        )


def test_rewards_of_real_actions_are_foretold_as_well():
    trials = navigation_trials()
    agent = make_agent(trials, prediction_weight=1.0)
    for variable in agent.outer_variables:
        variable.assign(tf.random.stateless_normal(variable.shape, [0, 1]))
    experience = collect(agent, trials)
    outputs, _ = agent._network()(experience.observation, experience.step_type)
    action = experience.action.numpy()
    factors = outputs[-1].numpy()
    expected = (factors[..., :2] * action).sum(axis=-1) + factors[..., 2]
    _, _, foretold = agent._look(experience)
    np.testing.assert_allclose(foretold, expected, rtol=1e-4, atol=1e-5)
    _, _, nothing = make_agent(trials)._look(experience)
    assert nothing is None


def test_every_trial_is_used_once_an_epoch():
    trials = bandit_trials()
    agent = make_agent(trials, minibatches=3, epochs=2)
    seen = []
    original = agent._step

    def step(batch, variances):
        seen.append(batch["number"])
        return original(batch, variances)

    agent._step = step
    experience = collect(agent, trials)
    weight = tf.ones([TASKS, 4])
    batch = {
        "experience": experience,
        "weight": weight,
        "old": weight,
        "rates": weight,
        "advantage": weight,
        "number": tf.range(TASKS),
    }
    # Eagerly, the loops are loops of Python.
    agent._epochs(batch, [tf.constant(1.0)])
    epochs = np.reshape(np.concatenate(seen), [2, TASKS])
    for epoch in epochs:
        assert sorted(epoch) == list(range(TASKS))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_says_that_training_has_diverged():
    trials = navigation_trials()
    agent = make_agent(
        trials, optimizer=keras.optimizers.SGD(1e30), minibatches=2
    )
    model = keras_meta.rl.AgentModel(agent, trials)
    model.compile()
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="loss of an outer step must be"
    ):
        model.fit(trials.tasks(TASKS), steps_per_epoch=1, verbose=0)


def test_returns_are_told_by_rollout():
    trials = navigation_trials()
    agent = make_agent(trials)
    experience = collect(agent, trials)
    found = trials_module.returns_by_rollout(experience, 2)
    reward = experience.reward.numpy()
    np.testing.assert_allclose(found[:, 0], reward[:, :3].sum(1), rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], reward[:, 3:].sum(1), rtol=1e-5)
    curve = agent.evaluate(trials, tasks=5)
    assert curve.rollouts == [0, 1] and curve.values.shape == (5, 2)


def test_it_learns_which_arm_pays():
    # A task that a memory of one step solves: one arm pays, and stays.
    class OneArm(keras_meta.rl.environments.Bandits):
        def draw_tasks(self, count, seed, split):
            chosen = tf.random.stateless_uniform([count], seed, 0, 2, tf.int32)
            return tf.one_hot(chosen, 2)

    trials = keras_meta.rl.environments.Trials(OneArm(2, horizon=1), 4)
    agent = make_agent(
        trials,
        cell=keras.layers.GRUCell(16),
        optimizer=keras.optimizers.Adam(0.02),
        epochs=4,
    )
    model = keras_meta.rl.AgentModel(agent, trials)
    model.compile()
    model.fit(trials.tasks(64), steps_per_epoch=80, verbose=0)
    values = model.predict(trials.sample_tasks(64, "test"), verbose=0)
    # 0.5 in the first pull, and most of all in those after.
    assert values[:, 1:].mean() > 0.85
    assert set(
        model.evaluate(trials.tasks(8, batches=1), verbose=0, return_dict=True)
    ) == {"return_before", "return_after"}


def test_adapt_gives_a_policy_that_remembers(tmp_path):
    trials = bandit_trials()
    agent = make_agent(trials)
    trials.set_tasks(trials.sample_task("test"))
    policy = agent.adapt(trials, rollouts=3)
    time_step = trials.reset()
    fresh = agent.policy.action(time_step, agent.policy.get_initial_state(1))
    state = policy.get_initial_state(1)
    assert not np.allclose(state[0], 0.0)
    step = policy.action(time_step, state)
    assert not np.allclose(step.state[0], fresh.state[0], atol=1e-5)
    policy_saver.PolicySaver(policy, batch_size=None).save(str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(loaded.get_initial_state(1)[0], state[0])
    again = loaded.action(time_step, state)
    np.testing.assert_array_equal(again.action, step.action)


def test_the_saved_model_plays_as_the_agent_does(tmp_path):
    trials = navigation_trials()
    agent = make_agent(trials, cell=keras.layers.LSTMCell(4))
    agent.export(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))
    state = loaded.signatures["start"]()
    experience = collect(agent, trials, greedy=True)
    for step in range(6):
        found = loaded.signatures["act"](
            **state, observation=experience.observation[:1, step]
        )
        np.testing.assert_allclose(
            found.pop("action"), experience.action[:1, step], atol=1e-5
        )
        state = found
    drawn = loaded.signatures["explore"](
        **state, observation=experience.observation[:1, 0]
    )
    assert drawn["action"].shape == (1, 2)


def test_the_ppo_of_tf_agents_trains_on_trials():
    trials = bandit_trials()

    def network(units, head=None):
        return keras_meta.rl.KerasRecurrentNetwork(
            trials.observation_spec(),
            keras.layers.GRUCell(4),
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)]),
            head=head,
        )

    _, read = heads.policy_head(trials.action_spec())
    agent = ppo_clip_agent.PPOClipAgent(
        trials.time_step_spec(),
        trials.action_spec(),
        keras.optimizers.Adam(0.01),
        network(3, read),
        network(1, lambda values: values[..., 0]),
        num_epochs=1,
        normalize_observations=False,
        normalize_rewards=False,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    agent.initialize()
    tasks = trials.sample_tasks(TASKS)
    before = [v.numpy() for v in agent.trainable_variables]

    @tf.function(autograph=False)
    def step():
        experience, _ = rollouts.collect(trials, agent.collect_policy, tasks)
        return agent.train(experience).loss

    assert np.isfinite(step())
    after = [v.numpy() for v in agent.trainable_variables]
    assert all(np.any(one != two) for one, two in zip(before, after))


def test_bad_arguments_are_refused():
    trials = bandit_trials()
    agent = make_agent(trials, unroll=3)
    bandits = trials.environment
    tasks = trials.sample_tasks(TASKS)
    for error, message, call in (
        (TypeError, "plays trials", lambda: agent.collect(bandits, tasks)),
        (
            ValueError,
            "longer than the recurrent unroll. Received: unroll=3 and trials "
            "of 4 steps",
            lambda: agent.collect(trials, tasks),
        ),
        (ValueError, "`epochs`", lambda: make_agent(trials, epochs=0)),
        (ValueError, "`decay`", lambda: make_agent(trials, decay=-1.0)),
        (ValueError, "`unroll`", lambda: make_agent(trials, unroll=0)),
        (
            ValueError,
            "multiple of the minibatches",
            lambda: (lambda agent: agent.train(collect(agent, trials)))(
                make_agent(trials, minibatches=4)
            ),
        ),
        (
            ValueError,
            "does not have that many rollouts",
            lambda: make_agent(trials).evaluate(trials, 3, rollouts=5),
        ),
    ):
        with pytest.raises(error, match=message):
            call()
