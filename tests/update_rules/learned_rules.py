"""What the rules that are LSTMs have in common, and how it is checked."""

import keras
import numpy as np
import tensorflow as tf

import keras_meta
from tests.update_rules import contract


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def numbers(values):
    """The preprocessing of gradients, in NumPy."""
    sizes = np.maximum(np.abs(values), np.exp(-10))
    return np.stack(
        [np.log(sizes) / 10, np.clip(values * np.exp(10), -1, 1)], axis=-1
    )


def lstm(cell, inputs, hidden, carry):
    """One step of an LSTM, in NumPy, with the weights of a cell."""
    kernel, recurrent_kernel, bias = (np.array(w) for w in cell.weights)
    inner = inputs @ kernel + hidden @ recurrent_kernel + bias
    write, keep, candidate, show = np.split(inner, 4, axis=1)
    carry = sigmoid(keep) * carry + sigmoid(write) * np.tanh(candidate)
    return sigmoid(show) * np.tanh(carry), carry


def shake(rule, scale=0.5):
    """Gives a rule weights that are far from those it starts with."""
    generator = np.random.default_rng(1)
    for variable in rule.trainable_variables:
        noise = scale * generator.normal(size=variable.shape)
        variable.assign(variable + noise)


def take_steps(rule, weights, gradients_per_step):
    """Returns the weights after each step, for given gradients."""
    state = rule.initial_state(weights)
    per_step = []
    for step, gradients in enumerate(gradients_per_step):
        weights, state = rule.call(weights, gradients, state, step)
        per_step.append(weights)
    return per_step


def random_steps(variables, steps=3, dtype="float64", seed=2):
    """Returns weights, and gradients of different sizes for every step."""
    generator = np.random.default_rng(seed)

    def draw(variable):
        values = generator.normal(size=variable.shape)
        return tf.constant(values, dtype)

    weights = [draw(variable) for variable in variables]
    gradients_per_step = [
        [draw(variable) * 10.0**-step for variable in variables]
        for step in range(steps)
    ]
    return weights, gradients_per_step


def flat(tensors):
    return np.concatenate([np.reshape(tensor, [-1]) for tensor in tensors])


class LSTMContract(contract.RuleContract):
    """Also write `reference()`: the same in NumPy, for flat vectors."""

    def reference(self, rule, weights, gradients_per_step):
        raise NotImplementedError

    def build(self):
        rule, variables = super().build()
        shake(rule)
        return rule, variables

    def test_equals_numpy_step_by_step(self, double_precision):
        rule, variables = self.build()
        weights, gradients_per_step = random_steps(variables)
        # Such as behind a ReLU that is off: nothing, and next to nothing.
        gradients_per_step[1][0] = tf.zeros_like(weights[0])
        gradients_per_step[1][1] *= 1e-7
        expected = self.reference(
            rule, flat(weights), [flat(step) for step in gradients_per_step]
        )
        found = take_steps(rule, weights, gradients_per_step)
        assert len(expected) == len(found) == 3
        for ours, theirs in zip(found, expected):
            assert [w.shape for w in ours] == [v.shape for v in variables]
            np.testing.assert_allclose(flat(ours), theirs, rtol=1e-9)

    def test_coordinates_are_treated_alike(self, double_precision):
        rule, variables = self.build()
        weights, gradients_per_step = random_steps(variables)
        order = np.random.default_rng(3).permutation(flat(weights).size)
        permuted = take_steps(
            rule,
            [tf.constant(flat(weights)[order])],
            [[tf.constant(flat(step)[order])] for step in gradients_per_step],
        )
        straight = take_steps(rule, weights, gradients_per_step)
        for ours, theirs in zip(straight, permuted):
            np.testing.assert_allclose(flat(ours)[order], flat(theirs))

    def test_tasks_side_by_side_and_in_xla_equal_those_one_by_one(self):
        rule, variables = self.build()
        learned = [variable.value for variable in rule.trainable_variables]
        tasks = [
            random_steps(variables, 0, "float32", seed)[0] for seed in (4, 5)
        ]

        def learn(weights):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                # The inner tapes are in here, one for every step.
                result = contract.adapt(rule, weights, steps=2)[-1]
                total = contract.loss(result)
            # Of second order, by the start and by what the rule learns.
            return result, tape.gradient(
                total, [weights, learned], unconnected_gradients="zero"
            )

        together = tf.nest.map_structure(lambda *a: tf.stack(a), *tasks)
        side_by_side = tf.function(
            lambda weights: tf.vectorized_map(learn, weights), autograph=False
        )(together)
        compiled = tf.function(learn, jit_compile=True, autograph=False)
        for number, task in enumerate(tasks):
            of_map = [leaf[number] for leaf in tf.nest.flatten(side_by_side)]
            of_xla = tf.nest.flatten(compiled(task))
            for expected, *found in zip(
                tf.nest.flatten(learn(task)), of_map, of_xla, strict=True
            ):
                for values in found:
                    np.testing.assert_allclose(
                        values, expected, rtol=1e-4, atol=1e-5
                    )

    def make_model(self, network, rule=None, **arguments):
        return keras_meta.MAML(
            network,
            inner_steps=2,
            inner_loss="mse",
            update_rule=rule or self.make_rule(),
            **arguments,
        )

    def test_nothing_is_rounded_in_mixed_precision(self):
        episodes = keras_meta.episodes.sinusoids(meta_batch_size=2)
        x, _ = next(iter(episodes))
        rule, variables = self.build()
        weights, gradients_per_step = random_steps(variables, 2, "float32")
        expected = take_steps(rule, weights, gradients_per_step)[-1]
        config, values = rule.get_config(), rule.get_weights()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            copy = type(rule).from_config({**config, "dtype": "mixed_float16"})
            copy.build_for(variables)
            copy.set_weights(values)
            found = []

            class Model(keras.Model):
                """Calls the rule as a model with autocasting does."""

                def call(self, inputs):
                    found.extend(take_steps(copy, weights, gradients_per_step))
                    return inputs

            Model()(np.zeros((1, 1), "float32"))
            for ours, theirs in zip(found[-1], expected):
                assert ours.dtype == tf.float32
                np.testing.assert_array_equal(ours, theirs)
            network = keras_meta.backbones.mlp((1,), (4,))
            model = self.make_model(network, copy)
            assert {v.dtype for v in copy.trainable_variables} == {"float32"}
            assert np.all(np.isfinite(model.predict(x, verbose=0)))
        finally:
            keras.config.set_dtype_policy("float32")

    def test_a_trained_rule_serves_another_network(self):
        rule, _ = self.build()
        values = rule.get_weights()
        model = self.make_model(keras_meta.backbones.mlp((1,), (5, 4)), rule)
        assert model.update_rule is rule
        for old, new in zip(values, rule.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert len(rule.trainable_variables) == len(values)
        x, _ = next(iter(keras_meta.episodes.sinusoids(meta_batch_size=2)))
        assert np.all(np.isfinite(model.predict(x, verbose=0)))
