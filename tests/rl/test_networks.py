import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as time_steps

import keras_meta
import keras_meta.rl
from keras_meta.rl import networks

OBSERVATION = tensor_spec.TensorSpec([3], tf.float32, "observation")
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int32, 0, 3, "action")
CONTINUOUS = tensor_spec.BoundedTensorSpec(
    [2], tf.float32, [-1.0, 0.0], [1.0, 4.0], "action"
)


def body(inputs=3):
    return keras_meta.backbones.mlp((inputs,), (5,), outputs=None)


def make(name):
    return {
        "network": lambda: keras_meta.rl.KerasNetwork(OBSERVATION, body()),
        "value": lambda: keras_meta.rl.KerasValueNetwork(OBSERVATION, body()),
        "q": lambda: keras_meta.rl.KerasQNetwork(OBSERVATION, DISCRETE, body()),
        "actor": lambda: keras_meta.rl.KerasActorNetwork(
            OBSERVATION, CONTINUOUS, body()
        ),
        "critic": lambda: keras_meta.rl.KerasCriticNetwork(
            (OBSERVATION, CONTINUOUS), body(5)
        ),
        "categorical": lambda: keras_meta.rl.KerasDistributionNetwork(
            OBSERVATION, DISCRETE, body()
        ),
        "normal": lambda: keras_meta.rl.KerasDistributionNetwork(
            OBSERVATION, CONTINUOUS, body()
        ),
        "recurrent": lambda: keras_meta.rl.KerasRecurrentNetwork(
            OBSERVATION,
            keras.layers.LSTMCell(4),
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
        ),
    }[name]()


def answer(network, inputs, **settings):
    output, _ = network(inputs, **settings)
    return output.mean() if hasattr(output, "mean") else output


def inputs_of(name, *axes):
    observation = tf.random.normal([*axes, 3])
    if name == "critic":
        return observation, tf.random.normal([*axes, 2])
    return observation


NAMES = ["network", "value", "q", "actor", "critic", "normal", "recurrent"]


@pytest.mark.parametrize("name", [*NAMES, "categorical"])
def test_weights_are_found_and_copies_have_their_own(name):
    network = make(name)
    assert network.trainable_weights
    assert all(isinstance(v, tf.Variable) for v in network.variables)
    # Where checkpoints and SavedModels look.
    held = {id(v) for v in tf.Module.variables.fget(network)}
    assert {id(v) for v in network.variables} <= held
    copy = network.copy()
    assert not {id(v) for v in copy.variables} & {
        id(v) for v in network.variables
    }
    assert [v.shape for v in copy.variables] == [
        v.shape for v in network.variables
    ]


@pytest.mark.parametrize("name", NAMES)
def test_sequences_are_answered_as_their_steps_are(name):
    network = make(name)
    inputs = inputs_of(name, 2, 4)
    together = answer(network, inputs)
    if name == "recurrent":
        state = network.get_initial_state(2)
        steps = []
        for number in range(4):
            step, state = network(inputs[:, number], network_state=state)
            steps.append(step)
    else:
        steps = [
            answer(
                network,
                tf.nest.map_structure(lambda leaf: leaf[:, number], inputs),
            )
            for number in range(4)
        ]
    np.testing.assert_allclose(together, tf.stack(steps, 1), atol=1e-6)


def test_a_recurrent_network_forgets_where_an_episode_begins():
    network = make("recurrent")
    inputs = tf.random.normal([1, 5, 3])
    step_type = tf.constant([[0, 1, 2, 0, 1]])
    outputs, _ = network(inputs, step_type)
    anew, _ = network(inputs[:, 3:], step_type[:, 3:])
    np.testing.assert_allclose(outputs[:, 3:], anew, atol=1e-6)
    without, _ = network(inputs)
    assert not np.allclose(outputs[:, 3:], without[:, 3:], atol=1e-6)
    assert time_steps.StepType.FIRST == 0


def test_a_recurrent_network_equals_the_layer_of_keras():
    network = make("recurrent")
    cell, head = network._hidden.models
    layer = keras.layers.RNN(cell, return_sequences=True)
    inputs = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    outputs, _ = network(tf.constant(inputs))
    expected = head.layers[-1](layer(inputs))
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_actions_of_a_normal_head_are_counted_in_their_bounds():
    network = make("normal")
    distribution, _ = network(tf.zeros([1, 3]))
    np.testing.assert_allclose(distribution.mean(), [[0.0, 2.0]], atol=1e-6)
    np.testing.assert_allclose(distribution.stddev(), [[1.0, 2.0]], atol=1e-6)
    assert distribution.event_shape == [2]
    actor = make("actor")
    actions, _ = actor(100 * tf.random.normal([50, 3]))
    assert np.all(actions <= [1.0, 4.0]) and np.all(actions >= [-1.0, 0.0])


def test_actions_without_bounds_are_counted_as_they_are():
    spec = tensor_spec.TensorSpec([2], tf.float32)
    network = keras_meta.rl.KerasDistributionNetwork(
        OBSERVATION, spec, body(), deviation=0.5
    )
    distribution, _ = network(tf.zeros([1, 3]))
    np.testing.assert_allclose(distribution.stddev(), [[0.5, 0.5]], atol=1e-6)


def test_a_squashed_head_stays_within_the_bounds():
    network = keras_meta.rl.KerasDistributionNetwork(
        OBSERVATION, CONTINUOUS, body(), head="squashed", deviation=0.5
    )
    distribution, _ = network(tf.zeros([1, 3]))
    # Without an observation: the middle, and the deviation before tanh.
    np.testing.assert_allclose(distribution.mode(), [[0.0, 2.0]], atol=1e-6)
    inner = distribution.input_distribution
    np.testing.assert_allclose(inner.stddev(), [[0.5, 0.5]], rtol=1e-5)
    distribution, _ = network(100.0 * tf.ones([50, 3]))
    actions = distribution.sample().numpy()
    assert np.all((actions >= [-1.0, 0.0]) & (actions <= [1.0, 4.0]))
    assert np.all(np.isfinite(distribution.log_prob(distribution.sample())))


def test_a_categorical_head_has_one_chance_for_each_action():
    distribution, _ = make("categorical")(tf.zeros([2, 3]))
    assert distribution.logits.shape == (2, 4)
    assert distribution.sample().dtype == tf.int32


def test_integer_observations_reach_the_model():
    spec = tensor_spec.BoundedTensorSpec([4, 4, 1], tf.uint8, 0, 255)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
        ]
    )
    network = keras_meta.rl.KerasValueNetwork(spec, model)
    network.create_variables()
    values, _ = network(tf.fill([2, 4, 4, 1], tf.constant(255, tf.uint8)))
    expected = tf.reduce_sum(network.trainable_weights[0])
    np.testing.assert_allclose(values, [expected, expected], rtol=1e-5)


def test_bad_arguments_are_refused():
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    recurrent = keras.layers.GRUCell(4)
    image = tensor_spec.TensorSpec([4, 4], tf.float32)
    for error, message, call in (
        (ValueError, "must be built", lambda: networks.check_model(unbuilt)),
        (TypeError, "Keras 3", lambda: networks.check_model("model")),
        (
            ValueError,
            "real actions have a normal distribution. Received: head='cate",
            lambda: keras_meta.rl.KerasDistributionNetwork(
                OBSERVATION, CONTINUOUS, body(), head="categorical"
            ),
        ),
        (
            ValueError,
            "integer actions have a categorical",
            lambda: keras_meta.rl.KerasDistributionNetwork(
                OBSERVATION, DISCRETE, body(), head="normal"
            ),
        ),
        (
            ValueError,
            "one real vector with bounds. Received",
            lambda: keras_meta.rl.KerasDistributionNetwork(
                OBSERVATION, DISCRETE, body(), head="squashed"
            ),
        ),
        (
            ValueError,
            "`head` must be one of",
            lambda: keras_meta.rl.KerasDistributionNetwork(
                OBSERVATION, DISCRETE, body(), head="beta"
            ),
        ),
        (
            ValueError,
            "one integer from 0",
            lambda: keras_meta.rl.KerasQNetwork(
                OBSERVATION, CONTINUOUS, body()
            ),
        ),
        (
            ValueError,
            "real actions with bounds",
            lambda: keras_meta.rl.KerasActorNetwork(
                OBSERVATION, DISCRETE, body()
            ),
        ),
        (
            ValueError,
            "one action",
            lambda: keras_meta.rl.KerasDistributionNetwork(
                OBSERVATION, [DISCRETE, DISCRETE], body()
            ),
        ),
        (
            ValueError,
            "one vector",
            lambda: keras_meta.rl.KerasRecurrentNetwork(
                image, recurrent, body(4)
            ),
        ),
    ):
        with pytest.raises(error, match=message):
            call()
