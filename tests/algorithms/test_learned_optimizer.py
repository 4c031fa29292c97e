"""Learning to optimize, and the optimizer that comes of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import inner_loop
from keras_meta import update_rules
from tests.algorithms import contract
from tests.algorithms.test_maml import linear_network
from tests.algorithms.test_maml import outer_gradient
from tests.algorithms.test_maml import random_episodes
from tests.algorithms.test_maml import relative_difference
from tests.update_rules import learned_rules


def small_rule(units=(4,), **arguments):
    return update_rules.CoordinatewiseLSTM(units, **arguments)


def learner(network=None, rule=None, loss="mse", optimizer=None, **arguments):
    settings = dict(inner_steps=4, truncation=2, seed=0)
    model = keras_meta.LearnedOptimizer(
        network or linear_network(),
        rule or small_rule(),
        **settings | arguments,
    )
    model.compile(optimizer or keras.optimizers.SGD(1.0), loss=loss)
    return model


class TestLearnedOptimizer(contract.VariantContract):
    def make_model(self):
        model = keras_meta.LearnedOptimizer(
            keras_meta.backbones.mlp((8,), (8,), outputs=3),
            small_rule(),
            inner_steps=3,
            truncation=2,
        )
        model.compile(
            keras.optimizers.Adam(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    def test_ways_to_run_give_equal_steps(self, monkeypatch):
        # But for the start, as XLA draws random numbers of its own.
        noise = np.random.default_rng(0).normal(size=(4, 99)).astype("float32")
        monkeypatch.setattr(
            keras_meta.LearnedOptimizer,
            "_start_noise",
            lambda self, tasks=None, seed=None: tf.constant(noise),
        )
        super().test_ways_to_run_give_equal_steps()


def trajectory_loss(model, x, noise, first_order):
    """The mean loss after each step, one task and one step after another."""
    start_of = model.initial_weights
    weights = [tf.convert_to_tensor(v) for v in model.network.weights]
    losses = []
    for task in range(len(noise)):
        xs, ys = x["support_x"][task], x["support_y"][task]
        current = start_of({"start_noise": noise[task]}, weights, True)
        state = model.update_rule.initial_state(current)
        for step in range(model.inner_steps):
            with tf.GradientTape() as tape:
                tape.watch(current)
                loss = tf.reduce_mean((xs @ current[0] - ys) ** 2)
            gradients = tape.gradient(loss, current)
            if first_order is not None:
                gradients = first_order[task][step]
            current, state = model.update_rule.call(
                current, gradients, state, step
            )
            losses.append(tf.reduce_mean((xs @ current[0] - ys) ** 2))
    if model.log_loss:
        losses = [tf.math.log(loss + 1e-6) for loss in losses]
    return tf.reduce_mean(losses)


def central_differences(function, variables, delta=1e-5):
    measured = []
    for variable in variables:
        gradient = np.zeros(variable.shape)
        for index in np.ndindex(*variable.shape):
            values = []
            for sign in (1, -1):
                shift = np.zeros(variable.shape)
                shift[index] = sign * delta
                variable.assign_add(shift)
                values.append(float(function()))
                variable.assign_sub(shift)
            gradient[index] = (values[0] - values[1]) / (2 * delta)
        measured.append(gradient)
    return measured


def gradients_met(model, x, noise):
    """The gradients that the rule reads, as numbers."""
    weights = [tf.convert_to_tensor(v) for v in model.network.weights]
    met = []
    for task in range(len(noise)):
        xs, ys = x["support_x"][task], x["support_y"][task]
        current = model.initial_weights(
            {"start_noise": noise[task]}, weights, True
        )
        state, steps = model.update_rule.initial_state(current), []
        for step in range(model.inner_steps):
            steps.append([2 / len(xs) * xs.T @ (xs @ current[0] - ys)])
            current, state = model.update_rule.call(
                current, steps[-1], state, step
            )
        met.append(steps)
    return met


@pytest.mark.parametrize(
    ("first_order", "log_loss"), [(True, False), (False, False), (True, True)]
)
def test_gradient_of_one_segment_equals_central_differences(
    float64, first_order, log_loss
):
    x, y = random_episodes(tasks=2, shape=(3,), dtype="float64")
    model = learner(
        linear_network(3),
        small_rule((2,)),
        inner_steps=3,
        truncation=3,
        first_order=first_order,
        log_loss=log_loss,
    )
    learned_rules.shake(model.update_rule)
    noise = model._start_noise(2, model.start_seed.numpy())
    constants = gradients_met(model, x, noise) if first_order else None
    # Traced, since it is asked for many times.
    loss = tf.function(
        lambda: trajectory_loss(model, x, noise, constants), autograph=False
    )
    expected = central_differences(loss, model.trainable_variables)
    actual = outer_gradient(model, x, y)
    assert relative_difference(actual, expected) < 1e-7


@pytest.mark.parametrize("mapping", ["vectorized", "sequential"])
@pytest.mark.parametrize("steps", [4, 5])
def test_segments_equal_those_computed_separately(float64, steps, mapping):
    x, y = random_episodes(tasks=2, dtype="float64")
    model = learner(inner_steps=steps, task_mapping=mapping)
    learned_rules.shake(model.update_rule)
    rule = model.update_rule
    noise = model._start_noise(2, model.start_seed.numpy())
    sources = [variable.value for variable in rule.trainable_variables]
    expected = [np.zeros(source.shape) for source in sources]
    for task in range(2):
        weights = model.initial_weights(
            {"start_noise": noise[task]}, model._network_weights(), True
        )
        support = x["support_x"][task], x["support_y"][task]
        rule_state = rule.initial_state(weights)
        for first in range(0, steps, 2):
            with tf.GradientTape() as tape:
                losses = []
                for step in range(first, min(first + 2, steps)):
                    adaptation = inner_loop.adapt(
                        model.network,
                        weights,
                        [],
                        (*support, None),
                        model.task_loss,
                        rule,
                        1,
                        constant_steps=1,
                        rule_state=rule_state,
                        first_step=step,
                    )
                    weights = adaptation.weights_per_step[-1]
                    rule_state = adaptation.rule_state
                    error = support[0] @ weights[0] - support[1]
                    losses.append(tf.reduce_mean(error**2))
                loss = tf.add_n(losses) / steps
            for total, part in zip(expected, tape.gradient(loss, sources)):
                total += part.numpy() / 2
            weights = [tf.constant(weight.numpy()) for weight in weights]
            rule_state = tf.nest.map_structure(
                lambda part: tf.constant(part.numpy()), rule_state
            )
    actual = outer_gradient(model, x, y)
    assert relative_difference(actual, expected) < 1e-10


def quadratics(tasks=8, size=4, seed=0):
    """Linear regression whose inputs have directions of different sizes."""
    x, y = random_episodes(tasks, 8, 2, (size,), seed=seed)
    scales = np.linspace(0.3, 1.5, size, dtype="float32")
    return {**x, "support_x": x["support_x"] * scales}, y


def test_training_makes_the_rule_better():
    model = learner(
        linear_network(4),
        optimizer=keras.optimizers.Adam(0.03),
        inner_steps=10,
        truncation=5,
    )
    x, y = quadratics(seed=1)
    before = model.evaluate(x, y, return_dict=True, verbose=0)
    model.fit(*quadratics(), batch_size=8, epochs=60, verbose=0)
    after = model.evaluate(x, y, return_dict=True, verbose=0)
    for name in ("trajectory_loss", "support_loss_after"):
        assert after[name] < 0.7 * before[name]
    assert after["support_loss_before"] == before["support_loss_before"]


def test_only_the_rule_is_trained():
    model = learner(keras_meta.backbones.mlp((5,), (3,)))
    learned = model.update_rule.trainable_variables
    assert {id(v) for v in model.trainable_variables} == {
        id(v) for v in learned
    }
    everything = model.trainable_variables + model.non_trainable_variables
    assert sorted(map(id, everything)) == sorted(map(id, model.variables))
    before = model.network.get_weights()
    model.fit(*random_episodes(), verbose=0)
    for old, new in zip(before, model.network.get_weights()):
        np.testing.assert_array_equal(old, new)
    # The iterations, the rate, and nothing for the network.
    assert len(model.optimizer.variables) == 2


class Spy(keras_meta.LearnedOptimizer):
    """Answers with where the network of each task starts."""

    def starts(self, x, training):
        weights = self._network_weights()
        return self._map_tasks(
            lambda task: self.initial_weights(task, weights, training),
            self._tasks(x, training=training),
        )


def test_starts_are_new_in_training_and_fixed_in_evaluation():
    network = keras_meta.backbones.mlp((5,), (64,))
    model = Spy(network, small_rule(), inner_steps=1, truncation=1, seed=3)
    model.compile("sgd", loss="mse")
    x, _ = random_episodes()
    first, second = model.starts(x, True), model.starts(x, True)
    fixed = [model.starts(x, False), model.starts(x, False)]
    for number, own in enumerate(network.get_weights()):
        drawn = np.stack([first[number], second[number]])
        drawn = drawn.reshape(6, *own.shape)
        if number in (1, 3):
            np.testing.assert_array_equal(drawn, np.zeros_like(drawn))
            continue
        assert len(np.unique(drawn)) == drawn.size
        assert abs(np.mean(drawn) - np.mean(own)) < 0.2 * np.std(own)
        assert abs(np.std(drawn) / np.std(own) - 1) < 0.2
        assert not np.array_equal(fixed[0][number][0], own)
        for other in (*fixed[0][number], *fixed[1][number]):
            np.testing.assert_array_equal(fixed[0][number][0], other)
    again = Spy(network, small_rule(), inner_steps=1, truncation=1, seed=3)
    again.compile("sgd", loss="mse")
    for one, other in zip(first, again.starts(x, True)):
        np.testing.assert_array_equal(one, other)


def test_evaluation_takes_its_own_number_of_steps():
    x, y = random_episodes()
    model = learner(evaluation_steps=7)
    answers = model.predictions_per_step(x)
    assert len(answers) == 8
    np.testing.assert_array_equal(answers[-1], model(x))
    adapted = model.adapt(x["support_x"][1], x["support_y"][1])
    np.testing.assert_allclose(
        adapted(x["query_x"][1]), answers[-1][1], rtol=1e-4, atol=1e-5
    )


def test_random_layers_and_normalization_train():
    network = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    x, y = random_episodes()
    model = learner(network, normalization_statistics="support")
    logs = model.train_on_batch(x, y, return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())
    assert np.all(np.isfinite(model.predict(x, verbose=0)))


def test_learned_step_sizes_are_learned_too():
    rule = update_rules.LearnedStepSizes(0.05, steps=3)
    model = learner(rule=rule, inner_steps=6)
    before = rule.get_weights()[0]
    model.fit(*random_episodes(), verbose=0)
    assert np.all(rule.get_weights()[0] != before)
    with pytest.raises(ValueError, match="each coordinate by itself.*Received"):
        model.keras_optimizer()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncation": 5}, "not be more than `inner_steps`.*truncation=5"),
        ({"truncation": 0}, "`truncation` must be an integer of 1"),
        ({"inner_steps": 0}, "`inner_steps` must be an integer of 1"),
        ({"first_order": "yes"}, "`first_order` must be one of"),
        ({"log_loss": 2}, "`log_loss` must be one of"),
        (
            {"normalization_statistics": "per_step"},
            "`normalization_statistics` must be one of",
        ),
        (
            {"rule": update_rules.GradientDescent()},
            "`update_rule` must have trainable weights.*Received",
        ),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        learner(**arguments)
