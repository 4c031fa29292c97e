import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
import keras_meta.rl

environments = keras_meta.rl.environments
POINTS = environments.PointNavigation(horizon=6)


class Nearness(keras.layers.Layer):
    """Embeds a rollout on squared distances by the goal, in closed form."""

    def call(self, seen):
        place = seen[:, :, :2] + seen[:, :, 5:7]
        right = seen[:, :, 4:5] + tf.reduce_sum(place**2, -1, keepdims=True)
        features = tf.concat([2 * place, tf.ones_like(right)], axis=-1)
        return tf.linalg.lstsq(features, right, fast=False)[:, :2, 0]


def make_siamese(steps=5):
    inputs = keras.Input((steps, 8))
    return keras_meta.SiameseNetwork(keras.Model(inputs, Nearness()(inputs)))


def make_agent(siamese=None, environment=POINTS, **settings):
    keras.utils.set_random_seed(0)
    settings = (
        dict(
            known_tasks=4,
            known_rollouts=3,
            known_iterations=1,
            rollouts=2,
            inner_iterations=1,
        )
        | settings
    )
    return keras_meta.rl.SimilarTaskAgent(
        lambda: keras_meta.rl.agents.ppo(environment, epochs=1),
        siamese or make_siamese(),
        **settings,
    )


@pytest.fixture(scope="module")
def trained():
    agent = make_agent()
    goals = tf.constant([[0.4, 0.4], [-0.4, 0.4], [0.4, -0.4]])
    info = tf.function(lambda: agent.learn(POINTS, goals), autograph=False)()
    assert np.isfinite(info.loss)
    return agent, goals


def test_the_most_similar_task_is_found(trained):
    agent, goals = trained
    new = tf.constant([[0.1, -0.3], [0.3, 0.2], [-0.5, 0.1], [0.5, 0.5]])
    seen = keras_meta.rl.random_rollouts(POINTS, new, 5)
    np.testing.assert_array_equal(agent.most_similar(seen), [2, 0, 1, 0])


def test_training_on_starts_from_the_weights_of_that_task(trained):
    agent, goals = trained
    known = agent._known().read()
    assert int(known["count"]) == 3
    seen = keras_meta.rl.random_rollouts(POINTS, tf.constant([[0.3, -0.3]]), 5)
    for start, value in zip(agent._starts(seen), known["values"]):
        np.testing.assert_array_equal(start[0], value[2])
    # What was learned in one task is not what was learned in another.
    assert any(np.ptp(value[:3], axis=0).max() > 0 for value in known["values"])
    curve = agent.evaluate(POINTS, tasks=2)
    assert curve.rollouts == [0, 2]
    environment = environments.PointNavigation(horizon=6, batch_size=2)
    environment.set_tasks([0.3, -0.3])
    policy = agent.adapt(environment)
    assert policy.action(environment.reset()).action.shape == (2, 2)


def test_the_oldest_tasks_are_forgotten():
    agent = make_agent(known_tasks=2)
    for goals in ([[0.4, 0.4]], [[-0.4, 0.4]], [[0.4, -0.4]]):
        agent.learn(POINTS, tf.constant(goals))
    assert int(agent.train_step_counter) == 3
    new = tf.constant([[0.3, 0.3], [-0.3, 0.3], [0.3, -0.3]])
    seen = keras_meta.rl.random_rollouts(POINTS, new, 5)
    nearest = agent.most_similar(seen).numpy()
    # The third has taken the place of the first.
    np.testing.assert_array_equal(nearest[1:], [1, 0])


@keras.saving.register_keras_serializable("keras_meta_tests")
class SerializableNearness(Nearness):
    pass


def test_what_is_known_leaves_as_a_library_and_comes_back(tmp_path):
    inputs = keras.Input((5, 8))
    siamese = keras_meta.SiameseNetwork(
        keras.Model(inputs, SerializableNearness()(inputs))
    )
    agent = make_agent(siamese)
    agent.learn(POINTS, tf.constant([[0.4, 0.4], [-0.4, 0.4]]))
    agent.library().save(tmp_path / "tasks.zip")
    library = keras_meta.TaskLibrary.load(tmp_path / "tasks.zip")
    assert library.names == ["task 0", "task 1"]
    other = make_agent(siamese)
    other.know(library)
    one, two = agent._known().read(), other._known().read()
    assert int(two["count"]) == 2
    np.testing.assert_array_equal(one["rollouts"][:2], two["rollouts"][:2])
    for value, again in zip(one["values"], two["values"]):
        np.testing.assert_array_equal(value[:2], again[:2])
    seen = keras_meta.rl.random_rollouts(POINTS, tf.constant([[-0.3, 0.3]]), 5)
    assert library.most_similar(seen).name == "task 1"

    pendulums = environments.Pendulums(horizon=6)
    with pytest.raises(ValueError, match="policy of the known task 'task 0'"):
        make_agent(siamese, pendulums).know(library)
    with pytest.raises(ValueError, match="rollouts of the known task 'task 0"):
        make_agent(siamese, known_rollouts=2).know(library)
    with pytest.raises(ValueError, match="more tasks than can be known"):
        make_agent(siamese, known_tasks=1).know(library)


def test_a_model_of_keras_trains_and_saves_it(tmp_path):
    models = []
    for _ in range(2):
        model = keras_meta.rl.AgentModel(make_agent(), POINTS)
        model.compile()
        models.append(model)
    one, other = models
    history = one.fit(POINTS.tasks(2, batches=1), verbose=0).history
    assert {"return_before", "return_after"} <= set(history)
    one.save_weights(tmp_path / "agent.weights.h5")
    other.load_weights(tmp_path / "agent.weights.h5")
    tf.nest.map_structure(
        np.testing.assert_array_equal,
        one.agent._known().read(),
        other.agent._known().read(),
    )


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match="`siamese` must be a .*Received"):
        make_agent("siamese")
    flat = keras_meta.SiameseNetwork(keras_meta.backbones.mlp((4,)))
    with pytest.raises(ValueError, match="must take rollouts .*Received"):
        make_agent(flat)
    with pytest.raises(ValueError, match="`known_tasks` must be"):
        make_agent(known_tasks=0)
    agent = make_agent()
    with pytest.raises(ValueError, match="more tasks than can be known"):
        agent.learn(POINTS, POINTS.sample_tasks(5))
    with pytest.raises(ValueError, match="optimizers of its agents"):
        agent.optimizer = keras.optimizers.Adam()
