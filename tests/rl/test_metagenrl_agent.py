import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
import keras_meta.rl
from keras_meta.rl import lives as lives_module
from keras_meta.rl.actor_critic import ActorCritic

environments = keras_meta.rl.environments


def make_environment(**settings):
    settings = dict(reward="distance", horizon=6) | settings
    return environments.PointNavigation(**settings)


def make_agent(environment=None, **settings):
    environment = environment or make_environment()
    keras.utils.set_random_seed(0)
    settings = (
        dict(
            objective=keras_meta.rl.LearnedObjective(units=8),
            optimizer=keras.optimizers.Adam(1e-2),
            population=3,
            inner_iterations=3,
            gradient_steps=2,
            windows=4,
            window_steps=5,
        )
        | settings
    )
    return keras_meta.rl.MetaGenRLAgent(
        environment.time_step_spec(), environment.action_spec(), **settings
    )


def make_actor_critic(objective=None, **settings):
    environment = make_environment()
    keras.utils.set_random_seed(0)
    return ActorCritic(
        environment.time_step_spec(),
        environment.action_spec(),
        objective or keras_meta.rl.LearnedObjective(units=8),
        keras_meta.backbones.mlp((2,), (6,), None, activation="tanh"),
        keras_meta.backbones.mlp((4,), (6,), None, activation="tanh"),
        settings.get("rule", keras_meta.update_rules.GradientDescent(0.5)),
        keras_meta.update_rules.Adam(1e-2),
        noise=0.3,
        target_rate=0.1,
    )


def make_windows(lives=1, windows=3, length=4, seed=0):
    """Returns windows in which a rollout ends in the middle of one."""
    generator = np.random.default_rng(seed)
    shape = [lives, windows, length + 1]
    step_type = np.ones(shape, "int32")
    step_type[:, 0, 2] = 2
    step_type[:, 0, 3] = 0
    discount = np.ones(shape, "float32")
    discount[:, 0, 1] = 0.0
    drawn = {
        "observation": generator.normal(size=[*shape, 2]),
        "action": generator.uniform(-1, 1, size=[*shape, 2]),
        "reward": generator.normal(size=shape),
    }
    return lives_module.Seen(
        **{k: tf.constant(v, tf.float32) for k, v in drawn.items()},
        discount=tf.constant(discount),
        step_type=tf.constant(step_type),
    )


def of_life(structure, number):
    return tf.nest.map_structure(lambda leaf: leaf[number], structure)


def make_lives(actor_critic, count):
    lives = lives_module.begin(actor_critic, count, 2, 6)
    return lives._replace(memory=())


class TestAStep:
    def test_gradients_of_the_objective_are_central_differences(self):
        actor_critic = make_actor_critic()
        life = of_life(make_lives(actor_critic, 1), 0)
        windows = of_life(make_windows(), 0)
        variables = actor_critic.objective.trainable_variables
        _, _, gradients = actor_critic.step(life, windows, True)
        direction = [
            gradient / tf.linalg.global_norm(gradients)
            for gradient in gradients
        ]
        start = [tf.identity(variable.value) for variable in variables]
        losses = []
        for sign in (1.0, -1.0):
            for variable, value, way in zip(variables, start, direction):
                variable.assign(value + sign * 0.002 * way)
            losses.append(float(actor_critic.step(life, windows, True)[1]))
        slope = (losses[0] - losses[1]) / 0.004
        norm = float(tf.linalg.global_norm(gradients))
        assert norm > 1e-4
        np.testing.assert_allclose(slope, norm, rtol=0.02)

    def test_the_critic_learns_from_hand_made_targets(self):
        actor_critic = make_actor_critic()
        life = of_life(make_lives(actor_critic, 1), 0)
        # Targets of their own.
        other = of_life(make_lives(actor_critic, 1), 0)
        life = life._replace(
            target_actor=other.actor, target_critic=other.critic
        )
        windows = of_life(make_windows(), 0)
        after, _, _ = actor_critic.step(life, windows, False)

        actor, critic = actor_critic.actor.model, actor_critic.critic.model
        for variable, value in zip(actor.trainable_variables, other.actor):
            variable.assign(value)
        for variable, value in zip(critic.trainable_variables, other.critic):
            variable.assign(value)
        parts = [np.asarray(part) for part in windows]
        observation, action, reward, discount, step_type = parts
        rows = [
            (window, step)
            for window in range(3)
            for step in range(4)
            if step_type[window, step] != 2
        ]
        assert len(rows) == 11
        targets = []
        for window, step in rows:
            following = tf.constant(observation[window, step + 1][None])
            value = critic((following, actor(following)))[0, 0]
            targets.append(
                reward[window, step]
                + 0.97 * discount[window, step] * float(value)
            )
        for variable, value in zip(critic.trainable_variables, life.critic):
            variable.assign(value)
        seen = tf.constant([observation[row] for row in rows])
        done = tf.constant([action[row] for row in rows])
        with tf.GradientTape() as tape:
            values = critic((seen, done))[:, 0]
            loss = tf.reduce_mean((values - np.array(targets)) ** 2)
        variables = critic.trainable_variables
        optimizer = keras.optimizers.Adam(1e-2)
        optimizer.apply(
            tape.gradient(loss, [v.value for v in variables]), variables
        )
        for variable, value in zip(variables, after.critic):
            np.testing.assert_allclose(variable, value, atol=1e-5)
        for old, new, target in zip(
            other.critic, after.critic, after.target_critic
        ):
            np.testing.assert_allclose(target, 0.9 * old + 0.1 * new, atol=1e-6)

    def test_the_actor_goes_down_the_objective(self):
        actor_critic = make_actor_critic()
        life = of_life(make_lives(actor_critic, 1), 0)
        windows = of_life(make_windows(), 0)
        after, _, nothing = actor_critic.step(life, windows, False)
        learned, _, gradients = actor_critic.step(life, windows, True)
        assert nothing == [] and len(gradients) == len(
            actor_critic.objective.trainable_variables
        )
        for one, other, old in zip(after.actor, learned.actor, life.actor):
            np.testing.assert_allclose(one, other, atol=1e-6)
            assert np.abs(one - old).max() > 0
        assert after.steps == 1

    def test_side_by_side_is_as_alone(self):
        actor_critic = make_actor_critic()
        lives = make_lives(actor_critic, 3)
        windows = make_windows(lives=3)
        together = tf.vectorized_map(
            lambda part: actor_critic.step(*part, True), (lives, windows)
        )
        for number in range(3):
            alone = actor_critic.step(
                of_life(lives, number), of_life(windows, number), True
            )
            tf.nest.map_structure(
                lambda one, other: np.testing.assert_allclose(
                    one, other, atol=1e-5
                ),
                of_life(together, number),
                alone,
            )


class TestLives:
    def test_only_what_was_seen_is_drawn(self):
        actor_critic = make_actor_critic()
        lives = lives_module.begin(actor_critic, 2, 6, 7)
        memory = lives.memory
        # Numbered by life, slot and step.
        numbers = np.arange(2)[:, None, None] * 100.0 + np.arange(6)[:, None]
        numbers = numbers * 10 + np.arange(7)
        memory = memory._replace(reward=tf.constant(numbers, tf.float32))
        settings = lives_module.Settings(1, 500, 4)
        drawn = lives_module._draw(memory, tf.constant([2, 6]), settings)
        reward = drawn.reward.numpy()
        assert reward.shape == (2, 500, 5)
        np.testing.assert_array_equal(np.diff(reward, axis=-1), 1.0)
        life, slot, step = reward // 1000, reward // 10 % 100, reward % 10
        assert (life[0] == 0).all() and (life[1] == 1).all()
        assert set(slot[0].ravel()) == {0, 1}
        assert set(slot[1].ravel()) == {0, 1, 2, 3, 4, 5}
        assert set(step.ravel()) == set(range(7))

    def test_rollouts_are_kept_in_units_of_the_bounds(self):
        environment = make_environment()
        agent = make_agent(environment)
        agent.prepare(environment)
        experience = agent.collect(environment, environment.sample_tasks(3))
        actor_critic = agent._actor_critic()
        lives = lives_module.begin(actor_critic, 3, 6, 7)
        for age in range(3):
            lives = lives_module._remember(actor_critic, lives, experience)
            np.testing.assert_array_equal(lives.age, [age + 1] * 3)
        action = np.clip(experience.action / 0.1, -1, 1)
        action = action.reshape(3, 2, 7, 2)
        for slot in (0, 2, 4):
            np.testing.assert_allclose(
                lives.memory.action[:, slot : slot + 2], action, atol=1e-6
            )


class TestMetaGenRLAgent:
    def test_agents_end_by_turns_and_begin_anew(self):
        environment = make_environment()
        agent = make_agent(environment)
        learn = tf.function(
            lambda tasks: agent.learn(environment, tasks), autograph=False
        )
        ages, kept = [], []
        for tasks in environment.tasks(3).take(7):
            info = learn(tasks)
            assert np.isfinite(info.loss)
            held = agent._held().read()
            ages.append(held["lives"].age.numpy().tolist())
            kept.append(held["tasks"].numpy())
        assert ages == [
            [0, 1, 1],
            [1, 0, 2],
            [2, 1, 0],
            [0, 2, 1],
            [1, 0, 2],
            [2, 1, 0],
            [0, 2, 1],
        ]
        # A task is kept for a whole life, and no longer.
        assert (kept[1][0] == kept[2][0]).all()
        assert (kept[2][0] == kept[3][0]).all()
        assert (kept[3][0] != kept[4][0]).any()
        assert int(agent.train_step_counter) == 7

    def test_only_training_changes_the_objective(self):
        environment = make_environment()
        agent = make_agent(environment)
        variables = agent.outer_variables
        start = [tf.identity(variable.value) for variable in variables]
        curve = agent.evaluate(environment, tasks=2)
        assert curve.rollouts == [0, 2, 4, 6]
        assert curve.values.shape == (2, 4)
        agent.adapt(environment, rollouts=4)
        for variable, value in zip(variables, start):
            np.testing.assert_array_equal(variable, value)
        agent.learn(environment, environment.sample_tasks(3))
        moved = [
            np.abs(variable - value).max()
            for variable, value in zip(variables, start)
        ]
        assert min(moved) > 0

    def test_adapt_returns_a_policy_of_tf_agents(self):
        environment = make_environment(batch_size=2)
        agent = make_agent(environment)
        environment.set_tasks([0.3, 0.2])
        policy = agent.adapt(environment, rollouts=2)
        action = policy.action(environment.reset()).action
        assert action.shape == (2, 2)
        assert np.abs(action).max() <= 0.1

    def test_an_objective_serves_other_environments(self):
        agent = make_agent()
        other = environments.CartPoles(horizon=6)
        shared = make_agent(other, objective=agent.objective)
        info = shared.learn(other, other.sample_tasks(3))
        assert np.isfinite(info.loss)
        assert shared.objective is agent.objective

    @pytest.mark.slow
    def test_environments_of_gymnasium_will_do(self):
        lines = pytest.importorskip("tests.gymnasium_environments")
        with environments.GymnasiumTasks(
            lines.line,
            lambda count, seed, split: tf.random.stateless_uniform(
                [count], seed, -1.0, 1.0
            ),
            horizon=6,
            workers=1,
        ) as family:
            agent = make_agent(family)
            learn = tf.function(
                lambda tasks: agent.learn(family, tasks), autograph=False
            )
            for tasks in family.tasks(3).take(2):
                assert np.isfinite(learn(tasks).loss)
            assert agent.evaluate(family, tasks=2).values.shape == (2, 4)

    def test_the_population_is_saved_with_the_objective(self, tmp_path):
        environment = make_environment()
        models = []
        for _ in range(2):
            agent = make_agent(environment, optimizer=None)
            model = keras_meta.rl.AgentModel(agent, environment)
            model.compile(keras.optimizers.Adam(1e-2))
            models.append(model)
        one, other = models
        history = one.fit(
            environment.tasks(3), steps_per_epoch=2, epochs=2, verbose=0
        ).history
        assert {"loss", "return", "return_before", "return_after"} <= set(
            history
        )
        one.save_weights(tmp_path / "agent.weights.h5")
        other.load_weights(tmp_path / "agent.weights.h5")
        states = [model.agent._held().read() for model in models]
        tf.nest.map_structure(np.testing.assert_array_equal, *states)
        assert max(states[0]["lives"].age) > 0

    def test_it_learns_to_move_actors_where_the_critics_want_them(self):
        # The loss of the objective falls: on fixed windows, steps become
        # better.
        actor_critic = make_actor_critic()
        objective = actor_critic.objective
        life = of_life(make_lives(actor_critic, 1), 0)
        windows = of_life(make_windows(windows=8), 0)
        optimizer = keras.optimizers.Adam(1e-2)
        optimizer.build(objective.trainable_variables)

        @tf.function(autograph=False)
        def learn():
            _, loss, gradients = actor_critic.step(life, windows, True)
            optimizer.apply(gradients, objective.trainable_variables)
            return loss

        losses = [float(learn()) for _ in range(60)]
        assert losses[-1] < losses[0] - 0.1


class TestBadInput:
    def test_environments_that_do_not_fit(self):
        agent = make_agent()
        other = environments.Pendulums(horizon=6)
        tasks = other.sample_tasks(3)
        with pytest.raises(ValueError, match="must have the specifications"):
            agent.learn(other, tasks)
        with pytest.raises(ValueError, match="must have the specifications"):
            agent.adapt(other)
        with pytest.raises(ValueError, match="as long as the windows.*Recei"):
            agent.learn(make_environment(horizon=4), tasks)

    def test_as_many_tasks_as_agents(self):
        environment = make_environment()
        agent = make_agent(environment)
        with pytest.raises(ValueError, match="Received: 2 tasks and popul"):
            agent.learn(environment, environment.sample_tasks(2))

    def test_actions_and_models_that_do_not_fit(self):
        bandits = environments.Bandits()
        with pytest.raises(ValueError, match="one real vector with bounds"):
            make_agent(bandits)
        critic = keras_meta.backbones.mlp((5,), (6,), None)
        with pytest.raises(ValueError, match="the critic of another agent"):
            make_agent(critic_model=critic)
        with pytest.raises(TypeError, match="`objective` must be .*Received"):
            make_agent(objective="critic")
        with pytest.raises(ValueError, match="`population` must be"):
            make_agent(population=0)
        with pytest.raises(ValueError, match="must be a multiple"):
            make_agent().adapt(make_environment(), rollouts=3)
