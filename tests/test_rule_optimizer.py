import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import inner_loop
from keras_meta import update_rules
from tests.update_rules import learned_rules

RULES = [
    lambda: update_rules.CoordinatewiseLSTM((3, 2)),
    lambda: update_rules.LSTMMetaLearner(units=3),
]


def trained(rule):
    """Returns a rule as if it had been trained, and the network it was for."""
    network = keras_meta.backbones.mlp((3,), (4,))
    keras_meta.LearnedOptimizer(network, rule, 2, 1, inner_loss="mse")
    learned_rules.shake(rule, 0.3)
    return rule


def examples(size=3):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(12, size)).astype("float32")
    return x, x[:, :1] - 0.5 * x[:, 1:2]


@pytest.mark.parametrize("make_rule", RULES)
@pytest.mark.parametrize("how", [{}, {"jit_compile": True}])
def test_equals_the_inner_loop_step_by_step(make_rule, how):
    rule = trained(make_rule())
    # Of another shape than the network that the rule was trained with.
    network = keras_meta.backbones.mlp((3,), (5, 4), activation="tanh")
    x, y = examples()
    expected = inner_loop.adapt(
        network,
        [tf.convert_to_tensor(v) for v in network.trainable_variables],
        [],
        (x, y, None),
        keras.losses.MeanSquaredError(),
        rule,
        steps=4,
    ).weights_per_step
    network.compile(keras_meta.RuleOptimizer(rule), loss="mse", **how)
    for weights in expected[1:]:
        network.train_on_batch(x, y)
        for theirs, ours in zip(weights, network.get_weights()):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_compiled_model_is_saved_with_what_was_learned(tmp_path):
    model = keras_meta.backbones.mlp((3,), (4,))
    optimizer = keras_meta.RuleOptimizer(
        trained(RULES[0]()), learning_rate=0.5, clipnorm=1.0
    )
    model.compile(optimizer, loss="mse")
    x, y = examples()
    model.fit(x, y, epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, keras_meta.RuleOptimizer)
    for either in (model, loaded):
        either.fit(x, y, epochs=2, verbose=0)
    for expected, actual in zip(
        model.get_weights() + model.optimizer.update_rule.get_weights(),
        loaded.get_weights() + loaded.optimizer.update_rule.get_weights(),
    ):
        np.testing.assert_array_equal(expected, actual)
    copy = keras_meta.RuleOptimizer.from_config(optimizer.get_config())
    assert float(copy.learning_rate) == 0.5 and copy.clipnorm == 1.0


def test_has_a_copy_of_the_rule():
    rule = trained(RULES[0]())
    optimizer = keras_meta.RuleOptimizer(rule)
    before = rule.get_weights()
    learned_rules.shake(rule)
    for old, now in zip(before, optimizer.update_rule.get_weights()):
        np.testing.assert_array_equal(old, now)


def test_the_rate_multiplies_the_moves():
    rule, moves = trained(RULES[0]()), []
    for rate in (1.0, keras.optimizers.schedules.ExponentialDecay(0.25, 1, 1)):
        variable = keras.Variable([1.0, -2.0])
        optimizer = keras_meta.RuleOptimizer(rule, rate)
        optimizer.apply([tf.constant([0.3, 0.01])], [variable])
        moves.append(variable.numpy() - [1.0, -2.0])
    np.testing.assert_allclose(moves[1], 0.25 * moves[0], rtol=1e-4)


def test_takes_rules_that_learn_nothing():
    rule = update_rules.GradientDescent(0.1)
    variable = keras.Variable([1.0, -2.0])
    rule.build_for([variable])
    keras_meta.RuleOptimizer(rule).apply([tf.constant([1.0, 2.0])], [variable])
    np.testing.assert_allclose(variable, [0.9, -2.2])


def test_embeddings_are_trained():
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="int32"),
            keras.layers.Embedding(5, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    before = model.get_weights()
    model.compile(keras_meta.RuleOptimizer(trained(RULES[0]())), loss="mse")
    model.fit(np.array([[0, 1], [2, 3]]), np.ones((2, 1)), verbose=0)
    for old, new in zip(before, model.get_weights()):
        assert np.any(old != new) and np.all(np.isfinite(new))


def test_refuses_rules_that_serve_one_network():
    rule = trained(update_rules.MetaSGD())
    with pytest.raises(
        ValueError, match=r"coordinate by itself.*Received.*\(3, 4\)"
    ):
        keras_meta.RuleOptimizer(rule)
    with pytest.raises(ValueError, match="must have learned.*Received"):
        keras_meta.RuleOptimizer(update_rules.CoordinatewiseLSTM())
    with pytest.raises(TypeError, match="UpdateRule.*Received"):
        keras_meta.RuleOptimizer("adam")
