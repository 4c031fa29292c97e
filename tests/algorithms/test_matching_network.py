import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_prototypical_network import cosine
from tests.algorithms.test_prototypical_network import identity_network
from tests.algorithms.test_prototypical_network import random_episode

DISTANCES = {
    "cosine": cosine,
    "euclidean": lambda a, b: np.linalg.norm(a - b),
    "squared_euclidean": lambda a, b: np.sum((a - b) ** 2),
}


def matching_network(**arguments):
    return keras_meta.MatchingNetwork(identity_network(), **arguments)


def attention_by_hand(support, query, distance, sharpness):
    powers = np.exp([-sharpness * distance(query, s) for s in support])
    return powers / powers.sum()


def with_targets(x, shape=(2,), seed=3):
    targets = np.random.default_rng(seed).normal(
        size=(*x["support_y"].shape, *shape)
    )
    return {**x, "support_y": targets.astype("float32")}


def padded(x):
    """Returns the same episode with support examples that do not count."""
    noise = random_episode(seed=1)
    support_y = noise["support_y"].astype(x["support_y"].dtype)
    support_y = support_y.reshape(
        *support_y.shape, *[1] * (x["support_y"].ndim - 2)
    )
    support_y = np.broadcast_to(support_y, x["support_y"].shape)
    return {
        "support_x": np.concatenate([x["support_x"], noise["support_x"]], 1),
        "support_y": np.concatenate([x["support_y"], support_y], 1),
        "support_weight": np.array([[1.0] * 7 + [0.0] * 7] * 2, "float32"),
        "query_x": x["query_x"],
    }


@pytest.mark.parametrize("sharpness", [None, 1.0, 3.0])
@pytest.mark.parametrize("name", DISTANCES)
def test_softmax_of_the_logits_is_the_attention_to_each_class(name, sharpness):
    x = random_episode()
    model = matching_network(distance=name, sharpness=sharpness)
    start = 10.0 if name == "cosine" else 1.0
    probabilities = keras.ops.softmax(model(x))
    for task, (support, labels) in enumerate(
        zip(x["support_x"], x["support_y"])
    ):
        for query, answer in zip(x["query_x"][task], probabilities[task]):
            attention = attention_by_hand(
                support, query, DISTANCES[name], sharpness or start
            )
            expected = [attention[labels == way].sum() for way in range(3)]
            np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-6)


def test_logits_are_an_absolute_score():
    # They are the logarithms of sums, not divided by what all classes have.
    x = random_episode()
    logits = matching_network(distance="euclidean", sharpness=2.0)(x)
    for way in range(3):
        of_way = x["support_x"][0][x["support_y"][0] == way]
        for query, logit in zip(x["query_x"][0], logits[0, :, way]):
            lengths = np.linalg.norm(of_way - query, axis=-1)
            expected = np.log(np.sum(np.exp(-2.0 * lengths)))
            np.testing.assert_allclose(logit, expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
@pytest.mark.parametrize("name", DISTANCES)
def test_regression_is_the_mean_weighed_by_attention(name, shape):
    x = with_targets(random_episode(), shape)
    model = matching_network(distance=name, sharpness=2.0, regression=True)
    answers = model(x)
    assert answers.shape == (2, 5, *shape)
    assert model.compute_output_spec(x).shape == (2, 5, *shape)
    for task in range(2):
        for query, answer in zip(x["query_x"][task], answers[task]):
            attention = attention_by_hand(
                x["support_x"][task], query, DISTANCES[name], 2.0
            )
            expected = sum(
                a * target for a, target in zip(attention, x["support_y"][task])
            )
            np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("context_steps", [0, 2])
@pytest.mark.parametrize("regression", [False, True])
def test_padded_support_counts_for_nothing(regression, context_steps):
    x = random_episode()
    if regression:
        x = with_targets(x)
    model = matching_network(context_steps=context_steps, regression=regression)
    np.testing.assert_allclose(model(padded(x)), model(x), rtol=1e-4, atol=1e-5)
    # Whatever they are, also in adapt().
    y = padded(x)
    parts = (y["support_x"][0], y["support_y"][0], y["support_weight"][0])
    np.testing.assert_allclose(
        model.adapt(*parts)(x["query_x"][0]), model(x)[0], rtol=1e-4, atol=1e-5
    )


def test_support_weight_is_how_often_an_example_counts():
    x = random_episode()
    twice = {
        **x,
        "support_x": np.concatenate([x["support_x"], x["support_x"][:, :1]], 1),
        "support_y": np.concatenate([x["support_y"], x["support_y"][:, :1]], 1),
    }
    weight = np.array([[2.0] + [1.0] * 6] * 2, "float32")
    model = matching_network()
    np.testing.assert_allclose(
        model({**x, "support_weight": weight}), model(twice), rtol=1e-4
    )


def test_tasks_of_fewer_ways_never_answer_with_an_absent_one():
    x = random_episode()
    x["support_y"][1] = np.minimum(x["support_y"][1], 1)
    logits = matching_network()(x)
    assert np.all(np.isfinite(logits))
    np.testing.assert_array_equal(logits[1, :, 2], -1e9)
    assert np.all(logits[0, :, 2] > -100)


@pytest.mark.parametrize("context_steps", [0, 2])
def test_permuting_the_ways_permutes_the_logits(context_steps):
    x = random_episode()
    model = matching_network(context_steps=context_steps)
    order = np.array([2, 0, 1])
    renamed = {**x, "support_y": order[x["support_y"]]}
    np.testing.assert_allclose(
        model(x), np.asarray(model(renamed))[..., order], atol=1e-5
    )


@pytest.mark.parametrize("context_steps", [0, 1])
@pytest.mark.parametrize("name", DISTANCES)
def test_gradient_is_finite_where_embeddings_coincide(name, context_steps):
    x = random_episode(shots=(1, 1, 1), queries=3)
    x["query_x"] = x["support_x"].copy()
    x["support_x"][:, 0] = x["query_x"][:, 0] = 0.0
    # A way that one of the tasks lacks, too.
    x["support_y"][1] = [0, 1, 1]
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, use_bias=False)]
    )
    model = keras_meta.MatchingNetwork(
        network, distance=name, context_steps=context_steps
    )
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    before = [weight.numpy() for weight in model.trainable_weights]
    model.fit(x, x["support_y"], verbose=0)
    after = [weight.numpy() for weight in model.trainable_weights]
    assert all(np.all(np.isfinite(weight)) for weight in after)
    assert any(np.any(old != new) for old, new in zip(before, after))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(inputs, hidden, memory, kernel, recurrent_kernel, bias):
    gates = inputs @ kernel + hidden @ recurrent_kernel + bias
    in_gate, forget, candidate, out_gate = np.split(gates, 4, axis=-1)
    memory = sigmoid(forget) * memory + sigmoid(in_gate) * np.tanh(candidate)
    return sigmoid(out_gate) * np.tanh(memory), memory


def lstm(sequence, weights):
    hidden = memory = np.zeros(sequence.shape[1])
    outputs = []
    for inputs in sequence:
        hidden, memory = lstm_step(inputs, hidden, memory, *weights)
        outputs.append(hidden)
    return np.array(outputs)


def in_context(support, query, forward, backward, cell, steps):
    """The equations of the paper's appendix, with loops."""
    g = support + lstm(support, forward) + lstm(support[::-1], backward)[::-1]
    kernel, recurrent_kernel, bias = cell
    size = len(query)
    # The paper's recurrent kernel is for what was said and what was read.
    of_state = np.concatenate([recurrent_kernel, kernel[size:]])
    hidden = memory = np.zeros(size)
    for _ in range(steps):
        scores = np.array([hidden @ example for example in g])
        attention = np.exp(scores) / np.exp(scores).sum()
        read = sum(a * example for a, example in zip(attention, g))
        output, memory = lstm_step(
            query,
            np.concatenate([hidden, read]),
            memory,
            kernel[:size],
            of_state,
            bias,
        )
        hidden = output + query
    return g, hidden


@pytest.mark.parametrize("steps", [1, 3])
def test_context_embeddings_equal_the_equations(steps):
    x = random_episode()
    model = matching_network(distance="euclidean", context_steps=steps)
    generator = np.random.default_rng(0)
    for variable in model.trainable_weights:
        if variable is not model.log_sharpness:
            variable.assign(0.5 * generator.normal(size=variable.shape))
    weights = model.support_context.get_weights()
    cell = model.query_context.get_weights()
    logits = model(x)
    for task, (support, labels) in enumerate(
        zip(x["support_x"], x["support_y"])
    ):
        for query, answer in zip(x["query_x"][task], logits[task]):
            g, f = in_context(
                support, query, weights[:3], weights[3:], cell, steps
            )
            powers = np.exp(-np.linalg.norm(g - f, axis=-1))
            expected = [np.log(powers[labels == way].sum()) for way in range(3)]
            np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-5)


def test_sharpness_is_learned_unless_it_is_given():
    x = random_episode()
    y = np.tile(np.arange(5) % 3, (2, 1))
    for sharpness, count in ((None, 1), (5.0, 0)):
        model = matching_network(sharpness=sharpness)
        assert len(model.trainable_weights) == count
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        if sharpness is None:
            model.fit(x, y, verbose=0)
            learned = np.exp(model.log_sharpness.numpy())
            assert abs(learned - 10.0) > 1e-3
            # It is the factor of the distances.
            fixed = matching_network(sharpness=float(learned))
            np.testing.assert_allclose(model(x), fixed(x), rtol=1e-4)
        assert model.get_config()["sharpness"] == sharpness


def test_logits_stay_finite_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        x = random_episode(ways=4, shots=(1, 1, 1, 1))
        x["support_y"][1] = [0, 1, 2, 2]
        for context_steps in (0, 2):
            model = matching_network(context_steps=context_steps)
            logits = model(x)
            assert logits.dtype == "float32"
            assert np.all(np.isfinite(logits))
            targets = with_targets(x)
            model = matching_network(
                context_steps=context_steps, regression=True
            )
            answers = model(targets)
            assert answers.dtype == "float32"
            adapted = model.adapt(
                targets["support_x"][0], targets["support_y"][0]
            )
            np.testing.assert_allclose(
                adapted(x["query_x"][0]), answers[0], rtol=1e-2, atol=1e-2
            )
    finally:
        keras.config.set_dtype_policy("float32")


def regression_model(**arguments):
    model = keras_meta.MatchingNetwork(
        keras_meta.backbones.mlp((1,), (32, 32), outputs=16),
        distance="squared_euclidean",
        regression=True,
        **arguments,
    )
    model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    return model


def test_regression_trains_is_measured_and_saved(tmp_path):
    model = regression_model()
    waves = keras_meta.episodes.sinusoids(episodes=50, seed=1)
    before = keras_meta.evaluate_episodes(model, waves)
    model.fit(
        keras_meta.episodes.sinusoids(),
        validation_data=waves,
        steps_per_epoch=100,
        verbose=0,
    )
    after = keras_meta.evaluate_episodes(model, waves)
    assert after.metric == "mean_squared_error"
    assert after.mean < 0.7 * before.mean
    logs = model.evaluate(waves, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], after.mean, rtol=1e-4)

    x, _ = next(iter(waves))
    assert model.predict(x, verbose=0).shape == (25, 10, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))

    adapted = model.adapt(x["support_x"][2], x["support_y"][2])
    answer = adapted.predict(x["query_x"][2], verbose=0)
    np.testing.assert_allclose(answer, model(x)[2], rtol=1e-4, atol=1e-5)
    adapted.save(tmp_path / "adapted.keras")
    loaded = keras.saving.load_model(tmp_path / "adapted.keras")
    np.testing.assert_array_equal(
        loaded.predict(x["query_x"][2], verbose=0), answer
    )


@pytest.mark.parametrize("context_steps", [0, 2])
def test_exported_regression_takes_targets_of_any_shape(
    context_steps, tmp_path
):
    model = matching_network(regression=True, context_steps=context_steps)
    model.export(tmp_path / "exported", verbose=False)
    endpoint = tf.saved_model.load(tmp_path / "exported").signatures[
        "adapt_and_predict"
    ]
    for shape in ((), (1,), (2, 3)):
        x = with_targets(random_episode(), shape)
        (answer,) = endpoint(
            **{name: tf.constant(value) for name, value in x.items()}
        ).values()
        np.testing.assert_allclose(answer, model(x), rtol=1e-4, atol=1e-5)


def test_regression_compiled_by_xla_gives_the_same():
    batch = next(iter(keras_meta.episodes.sinusoids(meta_batch_size=4)))
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = regression_model()
        model.compile("sgd", loss="mse", jit_compile=jit_compile)
        assert model.jit_compile is jit_compile
        model.train_on_batch(*batch)
        results.append(model.get_weights())
    for plain, compiled in zip(*results):
        np.testing.assert_allclose(plain, compiled, rtol=1e-4, atol=1e-5)


def test_unknown_is_calibrated_with_context_embeddings(tmp_path):
    # A class that is left out must not be in the context, either.
    model = keras_meta.MatchingNetwork(
        identity_network(8), context_steps=2, unknown=True
    )
    x, y = next(iter(contract.blob_episodes(meta_batch_size=2)))
    result = model.calibrate_unknown(
        tf.data.Dataset.from_tensors((x, y)), false_accept_rate=0.25
    )
    scores = []
    for task in range(2):
        for query, label in zip(x["query_x"][task], y[task]):
            kept = np.flatnonzero(x["support_y"][task] != label)
            left = {
                "support_x": tf.gather(x["support_x"][task], kept)[None],
                "support_y": tf.gather(x["support_y"][task], kept)[None],
                "query_x": query[None, None],
            }
            scores.append(np.max(model(left)[0, 0, :-1]))
    expected = np.sort(scores)[::-1][len(scores) // 4]
    np.testing.assert_allclose(result.threshold, expected, rtol=1e-4)
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    np.testing.assert_allclose(
        adapted(x["query_x"][0]), model(x)[0], rtol=1e-4, atol=1e-5
    )
    assert adapted(x["query_x"][0]).shape == (12, 4)


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="`distance` must.*'manhattan'"):
        matching_network(distance="manhattan")
    for bad in (-1.0, 0, "sharp", float("nan")):
        with pytest.raises(ValueError, match="`sharpness` must.*above 0"):
            matching_network(sharpness=bad)
    for bad in (-1, 1.5, "2", None):
        with pytest.raises(ValueError, match="`context_steps` must.*Received"):
            matching_network(context_steps=bad)
    with pytest.raises(ValueError, match="`regression` must be one of"):
        matching_network(regression="yes")
    with pytest.raises(ValueError, match="`ways` must be"):
        matching_network(ways=0)
    for arguments in ({"ways": 3}, {"unknown": True}):
        with pytest.raises(ValueError, match="A regression has no classes"):
            matching_network(regression=True, **arguments)


def test_refuses_bad_episodes():
    x = random_episode()
    model = matching_network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=r"lacks the classes \[3\]"):
        model.fit(x, np.full((2, 5), 3), verbose=0)
    with pytest.raises(ValueError, match=r"task 0.*lacks the classes \[1\]"):
        model.adapt(x["support_x"][0], [0, 0, 2, 2, 2, 2, 2])
    wide = {**x, "query_x": np.zeros((2, 5, 6), "float32")}
    with pytest.raises(ValueError, match=r"same shape.*\(4,\).*\(6,\)"):
        model.fit(wide, np.zeros((2, 5), "int32"), verbose=0)
    model = matching_network(regression=True)
    model.compile("sgd", "mse")
    x = with_targets(x)
    with pytest.raises(ValueError, match=r"same shape.*\(2,\).*\(3,\)"):
        model.fit(x, np.zeros((2, 5, 3), "float32"), verbose=0)
    with pytest.raises(ValueError, match="classifier.*unknown=True"):
        model.calibrate_unknown(keras_meta.episodes.sinusoids(episodes=2))


def compiled_model(**arguments):
    model = keras_meta.MatchingNetwork(
        keras_meta.backbones.mlp((8,), (16,), outputs=8), ways=3, **arguments
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class TestMatchingNetwork(contract.AlgorithmContract):
    def make_model(self):
        return compiled_model()


class TestMatchingNetworkWithContext(contract.VariantContract):
    support_order_matters = True

    def make_model(self):
        return compiled_model(context_steps=1)
