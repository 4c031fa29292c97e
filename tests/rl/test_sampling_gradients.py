import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import time_step as time_steps

import keras_meta.rl
from keras_meta.rl import outer_problem
from keras_meta.rl import sampling_gradients
from keras_meta.rl.fast_weights_policy import forward
from keras_meta.rl.outer_updates import ClippedSurrogate
from tests.rl.test_maml_agent import assert_close
from tests.rl.test_maml_agent import bandits
from tests.rl.test_maml_agent import central_differences
from tests.rl.test_maml_agent import collect
from tests.rl.test_maml_agent import learn
from tests.rl.test_maml_agent import make_agent
from tests.rl.test_maml_agent import navigation
from tests.rl.test_maml_agent import wide_problem

RATE = 0.7
# A bandit of one pull, whose arms always pay the same: all that can happen is
# soon told.
PAID = np.array([1.0, -0.5, 0.3])
ARMS = range(len(PAID))
SEEN = tf.ones([1, 1], tf.float64)


class SurePayments(keras_meta.rl.environments.GraphTaskFamily):
    """That bandit, as an environment."""

    def __init__(self):
        super().__init__(
            tf.TensorSpec([1], tf.float64),
            BoundedTensorSpec([], tf.int32, 0, len(PAID) - 1),
            task_spec=tf.TensorSpec([1], tf.float32),
            horizon=1,
        )

    def initial_state(self, tasks, seed):
        return tasks

    def transition(self, state, actions, tasks, seed):
        reward = tf.gather(tf.constant(PAID, tf.float32), actions)
        return state, reward, tf.ones_like(reward, tf.bool)

    def observe(self, state, tasks):
        return tf.ones_like(state, tf.float64)


def make_bandit_agent(**settings):
    observation = tf.TensorSpec([1], tf.float64)
    action = BoundedTensorSpec([], tf.int32, 0, len(PAID) - 1)
    features = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(2, activation="tanh")]
    )
    agent = keras_meta.rl.MAMLAgent(
        time_steps.time_step_spec(observation),
        action,
        keras_meta.rl.KerasDistributionNetwork(observation, action, features),
        inner_learning_rate=RATE,
        **{"outer_update": "reinforce", **settings},
    )
    for variable in agent.outer_variables:
        variable.assign(tf.random.normal(variable.shape, dtype=tf.float64))
    return agent


def values_of(agent):
    return [tf.convert_to_tensor(v.value) for v in agent.outer_variables]


def chances(agent, values):
    """Returns how likely the policy pulls each arm."""
    return tf.nn.softmax(forward(agent.network, values, SEEN)[0])


def expected_payment(agent, values):
    return tf.reduce_sum(chances(agent, values) * PAID)


def climbed(values, tape, objective):
    slopes = tape.gradient(objective, values)
    return [value + RATE * slope for value, slope in zip(values, slopes)]


def after_pulls(agent, values, arms):
    """Returns the weights after an inner step on some pulls."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        gains = [tf.math.log(chances(agent, values))[a] * PAID[a] for a in arms]
        objective = tf.add_n(gains) / len(arms)
    return climbed(values, tape, objective)


def histories(agent, values, pulls, steps):
    """Yields all that can happen: how likely it is, the arms of each inner
    step, and the weights before, between and after these."""
    if steps == 0:
        yield 1.0, [], [values]
        return
    for arms in itertools.product(ARMS, repeat=pulls):
        chance = tf.reduce_prod(tf.gather(chances(agent, values), arms))
        moved = after_pulls(agent, values, arms)
        for share, later, weights in histories(agent, moved, pulls, steps - 1):
            yield chance * share, [arms, *later], [values, *weights]


def batch(arms, weight, credit):
    arms, weight = np.array([arms], "int32"), tf.convert_to_tensor([weight])
    return {
        "observation": tf.ones([*arms.shape, 1], tf.float64),
        "action": tf.constant(arms),
        "advantage": tf.constant(PAID[arms]),
        "weight": tf.cast(weight, tf.float64),
        "credit": tf.cast([credit], tf.float64),
    }


def query(agent, weights):
    """All arms, weighed by how likely they are: no chance is left."""
    weight = chances(agent, weights)
    return batch(ARMS, weight, tf.reduce_sum(weight * PAID))


def gradient_of(agent):
    """Returns a function from batches to the direction that agents follow."""

    @tf.function(autograph=False)
    def gradient(adaptation, query):
        problem = outer_problem.OuterProblem(agent, adaptation, query)
        _, gradients = problem.loss_and_gradients(problem.values())
        return [-part for part in gradients]

    return gradient


def distance(found, expected):
    scale = max(np.abs(part).max() for part in expected)
    return max(np.abs(a - b).max() for a, b in zip(found, expected)) / scale


def expected_return(agent, values, pulls):
    """Returns what is got after inner steps, all that can happen weighed."""
    total = 0.0
    for chance, _, weights in histories(
        agent, values, pulls, agent.inner_steps
    ):
        counted = weights[1:] if agent.every_step else weights[-1:]
        returns = [expected_payment(agent, w) for w in counted]
        total += chance * tf.add_n(returns) / len(returns)
    return total


@pytest.mark.parametrize(
    "settings, pulls",
    [
        ({}, 2),
        ({"outer_update": ClippedSurrogate()}, 2),
        ({"inner_steps": 2}, 1),
        ({"inner_steps": 2, "every_step": True}, 1),
    ],
    ids=["reinforce", "ppo", "two steps", "every step"],
)
def test_credit_makes_the_mean_gradient_the_true_one(float64, settings, pulls):
    agent = make_bandit_agent(sampling_gradient="e_maml", **settings)
    values = values_of(agent)
    true = central_differences(
        lambda values: expected_return(agent, values, pulls), values
    )

    def mean_gradient():
        gradient = gradient_of(agent)
        total = [np.zeros(value.shape) for value in values]
        for chance, pulled, weights in histories(
            agent, values, pulls, agent.inner_steps
        ):
            # What a pull pays is its own credit, where others led to it.
            adaptation = [
                batch(arms, np.ones(pulls), PAID[list(arms)].mean())
                for arms in pulled
            ]
            parts = gradient(adaptation, query(agent, weights[-1]))
            total = [one + chance * part for one, part in zip(total, parts)]
        return [part.numpy() for part in total]

    assert distance(mean_gradient(), true) < 1e-6
    agent.sampling_gradient = sampling_gradients.get(None)
    assert distance(mean_gradient(), true) > 0.05


def test_credit_is_right_for_rollouts_that_were_drawn(float64):
    agent = make_bandit_agent(sampling_gradient="e_maml", rollouts=2)
    groups, size = 40, 200
    true = central_differences(
        lambda values: expected_return(agent, values, 2), values_of(agent)
    )

    def raw_batch(experience, count):
        """Learns from what was paid as it is; it is a gradient then."""
        paid = tf.cast(tf.reshape(experience.reward, [count, 2]), tf.float64)
        return {
            "observation": tf.ones([count, 2, 1], tf.float64),
            "action": tf.reshape(experience.action, [count, 2]),
            "advantage": paid,
            "weight": tf.ones_like(paid),
            # Any baseline will do that does not depend on what was drawn.
            "credit": tf.reduce_mean(paid, axis=1) - PAID.mean(),
        }

    agent._batch = raw_batch
    environment = SurePayments()
    experience = tf.function(
        lambda: agent.collect(environment, tf.zeros([groups * size, 1])),
        autograph=False,
    )()
    stages = tf.nest.map_structure(
        lambda leaf: tf.reshape(leaf, [groups, size, *leaf.shape[1:]]),
        [
            raw_batch(stage, groups * size)
            for stage in (*experience.adaptation, experience.query)
        ],
    )

    def deviation():
        """Returns how many standard errors the mean is from the truth."""
        gradient = gradient_of(agent)
        found = []
        for group in range(groups):
            inner, outer = tf.nest.map_structure(lambda x: x[group], stages)
            parts = gradient([inner], outer)
            found.append(np.concatenate([np.ravel(part) for part in parts]))
        expected = np.concatenate([part.ravel() for part in true])
        error = np.std(found, axis=0, ddof=1) / np.sqrt(groups)
        return np.abs(np.mean(found, axis=0) - expected) / error

    assert deviation().max() < 4
    agent.sampling_gradient = sampling_gradients.get(None)
    assert deviation().max() > 10


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_likelihood_ratio_has_the_second_derivatives_of_the_expectation(
    float64, inner_steps
):
    agent = make_bandit_agent(
        sampling_gradient="promp", inner_steps=inner_steps
    )
    values = values_of(agent)

    def trained(values):
        """Returns the weights after exact inner steps, on endless rollouts."""
        stages = [values]
        for _ in range(inner_steps):
            with tf.GradientTape() as tape:
                tape.watch(values)
                objective = expected_payment(agent, values)
            values = climbed(values, tape, objective)
            stages.append(values)
        return stages

    true = central_differences(
        lambda values: expected_payment(agent, trained(values)[-1]), values
    )
    *adaptation, after = [query(agent, stage) for stage in trained(values)]
    corrected = gradient_of(agent)(adaptation, after)
    assert distance(corrected, true) < 1e-6
    agent.sampling_gradient = sampling_gradients.get(None)
    assert distance(gradient_of(agent)(adaptation, after), true) > 0.05


@pytest.mark.parametrize("name", ["e_maml", "promp"])
@pytest.mark.parametrize("outer_update", ["reinforce", "ppo"])
def test_the_gradient_of_later_epochs_equals_central_differences(
    float64, name, outer_update
):
    agent, problem, values = wide_problem(
        True,
        inner_learning_rate=0.5,
        outer_update=outer_update,
        sampling_gradient=name,
        inner_steps=2,
    )
    generator = np.random.default_rng(3)
    moved = [v + 0.02 * generator.normal(size=v.shape) for v in values]
    gradient = tf.function(problem.loss_and_gradients, autograph=False)
    _, gradients = gradient(moved)
    expected = central_differences(
        lambda values: problem.loss_and_divergence(values)[0], moved
    )
    assert_close(gradients, expected, 5e-6)


def test_the_inner_step_is_the_same_and_the_outer_one_is_not():
    environment = navigation()
    agent = make_agent(environment)
    experience = collect(agent, environment)
    steps, gradients = [], []
    for name in (None, "promp", "e_maml"):
        agent.sampling_gradient = sampling_gradients.get(name)
        take = tf.function(agent.take_inner_step, autograph=False)
        steps.append(take(*agent.start(3), experience.adaptation[0], 0)[0])
        *adaptation, after = [
            agent._batch(stage, 3)
            for stage in (*experience.adaptation, experience.query)
        ]
        gradients.append(gradient_of(agent)(adaptation, after))
    for other in steps[1:]:
        for one, two in zip(steps[0], other):
            np.testing.assert_array_equal(one, two)
    assert distance(gradients[1], gradients[0]) > 1e-3
    assert distance(gradients[2], gradients[0]) > 1e-3


def test_the_divergence_before_adaptation_counts_by_its_weight(float64):
    losses = []
    for weight in (0.0, 2.0):
        keras.utils.set_random_seed(0)
        agent, problem, values = wide_problem(
            True,
            inner_learning_rate=0.5,
            outer_update="reinforce",
            sampling_gradient=sampling_gradients.ProMP(weight),
        )
        moved = [v + 0.1 for v in values]
        measure = tf.function(problem.loss_and_divergence, autograph=False)
        losses.append(measure(moved)[0])
    divergences = []
    for task in range(3):
        before = problem._tasks["stages"][0]
        old, new = (
            tf.nn.log_softmax(
                forward(agent.network, v, before["observation"][task])
            )
            for v in (values, moved)
        )
        gone = tf.reduce_sum(tf.exp(old) * (old - new), axis=1)
        divergences.append(np.average(gone, weights=before["weight"][task]))
    np.testing.assert_allclose(
        losses[1] - losses[0], 2.0 * np.mean(divergences), rtol=1e-6
    )
    assert losses[1] > losses[0] + 1e-4


@pytest.mark.parametrize(
    "name, outer_update", [("e_maml", "reinforce"), ("promp", "ppo")]
)
def test_an_outer_step_is_taken(name, outer_update):
    environment = bandits()
    agent = make_agent(
        environment, sampling_gradient=name, outer_update=outer_update
    )
    before = agent.network.model.get_weights()
    info = learn(agent, environment)
    assert info.extra["gradient_norm"] > 0
    after = agent.network.model.get_weights()
    assert all(np.all(np.isfinite(one)) for one in after)
    assert any(np.any(one != other) for one, other in zip(after, before))


def test_what_means_nothing_is_refused():
    environment = bandits()
    for message, settings in (
        ("`sampling_gradient` must be one of", {"sampling_gradient": "dice"}),
        (
            "'ppo' or 'reinforce'",
            {"sampling_gradient": "e_maml", "outer_update": "trpo"},
        ),
        (
            "'ppo' or 'reinforce'",
            {"sampling_gradient": "promp", "outer_update": "trpo"},
        ),
        (
            "`first_order` must be False",
            {"sampling_gradient": "promp", "first_order": True},
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make_agent(environment, **settings)
    with pytest.raises(ValueError, match="`weight`"):
        sampling_gradients.EMAML(0)
    with pytest.raises(ValueError, match="`divergence_weight`"):
        sampling_gradients.ProMP(-1)
    gradient = sampling_gradients.EMAML(0.5)
    assert sampling_gradients.get(gradient) is gradient
