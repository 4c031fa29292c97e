"""What update rules must do, and how it is checked."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta


def variables():
    """Two layers of a kernel and a bias, as a network has them."""
    generator = np.random.default_rng(0)
    network = keras_meta.backbones.mlp((2,), (3,), outputs=1)
    for variable in network.trainable_variables:
        variable.assign(generator.normal(size=variable.shape))
    return network.trainable_variables


def loss(weights):
    """A loss that is not quadratic, and of which some gradients are zero."""
    parts = [
        tf.reduce_sum(tf.sin(weight + number) + weight**4 / 20)
        for number, weight in enumerate(weights[:-1])
    ]
    return tf.add_n(parts)


def adapt(rule, weights, steps):
    """Takes inner steps, and returns the weights after each."""
    state = rule.initial_state(weights)
    per_step = []
    for step in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = loss(weights)
        gradients = tape.gradient(value, weights, unconnected_gradients="zero")
        weights, state = rule.call(weights, gradients, state, step)
        per_step.append(weights)
    return per_step


class RuleContract:
    """Subclass it as `TestMyRule` and write `make_rule()`."""

    def make_rule(self):
        raise NotImplementedError

    def make_optimizer(self):
        """Returns the Keras optimizer that does the same, if there is one."""
        return None

    def build(self):
        """Returns a rule and the variables it is built for."""
        rule, keras_variables = self.make_rule(), variables()
        rule.build_for(keras_variables)
        return rule, keras_variables

    @pytest.fixture
    def double_precision(self):
        keras.backend.set_floatx("float64")
        yield
        keras.backend.set_floatx("float32")

    def test_equals_the_optimizer_of_keras_step_by_step(self, double_precision):
        optimizer = self.make_optimizer()
        if optimizer is None:
            pytest.skip("Keras has no such optimizer.")
        rule, keras_variables = self.build()
        weights = [tf.convert_to_tensor(v.value) for v in keras_variables]
        for expected in adapt(rule, weights, steps=7):
            values = [variable.value for variable in keras_variables]
            with tf.GradientTape() as tape:
                value = loss(values)
            gradients = tape.gradient(
                value, values, unconnected_gradients="zero"
            )
            optimizer.apply(gradients, keras_variables)
            for ours, theirs in zip(expected, keras_variables):
                np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)

    def test_outer_gradient_equals_central_differences(self, double_precision):
        rule, keras_variables = self.build()
        weights = [tf.convert_to_tensor(v.value) for v in keras_variables]
        learned = [v.value for v in rule.trainable_variables]

        @tf.function
        def outer_loss(start):
            return loss(adapt(rule, start, steps=4)[-1])

        sources = [*weights, *learned]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = outer_loss(weights)
        exact = tape.gradient(value, sources, unconnected_gradients="zero")
        delta = 1e-6
        for number, gradient in enumerate(exact):
            measured = np.zeros(gradient.shape)
            for index in np.ndindex(*gradient.shape):
                values = []
                for sign in (1, -1):
                    shift = np.zeros(gradient.shape)
                    shift[index] = sign * delta
                    if number < len(weights):
                        moved = list(weights)
                        moved[number] = moved[number] + shift
                        values.append(outer_loss(moved))
                    else:
                        variable = learned[number - len(weights)]
                        variable.assign_add(shift)
                        values.append(outer_loss(weights))
                        variable.assign_sub(shift)
                measured[index] = (values[0] - values[1]) / (2 * delta)
            np.testing.assert_allclose(gradient, measured, rtol=1e-5, atol=1e-7)

    def test_gradients_are_finite_where_nothing_has_moved(self):
        rule, keras_variables = self.build()
        weights = [tf.zeros(v.shape) for v in keras_variables]
        zeros = [tf.zeros_like(weight) for weight in weights]
        with tf.GradientTape() as tape:
            tape.watch([weights, zeros])
            state = rule.initial_state(weights)
            for step in range(2):
                moved, state = rule.call(weights, zeros, state, step)
            total = tf.add_n([tf.reduce_sum(weight) for weight in moved])
        for gradient in tf.nest.flatten(tape.gradient(total, [weights, zeros])):
            assert gradient is None or np.all(np.isfinite(gradient))

    def test_trains_inside_maml_and_is_saved_with_it(self, tmp_path):
        model = keras_meta.MAML(
            keras_meta.backbones.mlp((1,), (8,)),
            inner_steps=2,
            evaluation_steps=4,
            update_rule=self.make_rule(),
            task_mapping="sequential",
        )
        # Three steps are taken sooner than one is traced.
        model.compile(keras.optimizers.Adam(0.01), loss="mse", run_eagerly=True)
        episodes = keras_meta.episodes.sinusoids(meta_batch_size=4)
        before = [np.array(v) for v in model.update_rule.trainable_variables]
        model.fit(episodes, steps_per_epoch=3, verbose=0)
        for old, new in zip(before, model.update_rule.trainable_variables):
            assert not np.array_equal(old, new)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        x, _ = next(iter(episodes))
        np.testing.assert_array_equal(model(x), loaded(x))
        assert loaded.update_rule.get_config() == model.update_rule.get_config()
