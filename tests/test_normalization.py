import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import inner_loop
from keras_meta import normalization


def network(trained_statistics=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.BatchNormalization(name="normalization"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    if trained_statistics:
        layer = model.get_layer("normalization")
        layer.moving_mean.assign(np.linspace(-0.5, 0.5, 6))
        layer.moving_variance.assign(np.linspace(0.5, 2.0, 6))
    return model


def by_hand(model, x, mean=None, variance=None):
    """The network without dropout, in NumPy."""
    dense, normalize, _, head = model.layers
    kernel, bias = dense.get_weights()
    hidden = np.tanh(x @ kernel + bias)
    gamma, beta = normalize.gamma.numpy(), normalize.beta.numpy()
    mean = hidden.mean(axis=0) if mean is None else mean
    variance = hidden.var(axis=0) if variance is None else variance
    scale = gamma / np.sqrt(variance + normalize.epsilon)
    kernel, bias = head.get_weights()
    return ((hidden - mean) * scale + beta) @ kernel + bias


def predict(model, support_x, query_x, statistics):
    return inner_loop.predict(
        model,
        [tf.convert_to_tensor(v) for v in model.trainable_variables],
        inner_loop.network_state(model),
        support_x,
        query_x,
        normalization_statistics=statistics,
    )


def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(2, 9, 4)).astype("float32")


def test_each_choice_uses_the_statistics_it_names():
    model = network(trained_statistics=True)
    support_x, query_x = data()
    layer = model.get_layer("normalization")
    dense = model.layers[0]
    support_hidden = np.tanh(
        support_x @ dense.get_weights()[0] + dense.get_weights()[1]
    )
    expected = {
        "batch": by_hand(model, query_x),
        "support": by_hand(
            model,
            query_x,
            support_hidden.mean(axis=0),
            support_hidden.var(axis=0),
        ),
        "frozen": by_hand(
            model,
            query_x,
            layer.moving_mean.numpy(),
            layer.moving_variance.numpy(),
        ),
    }
    for statistics, answer in expected.items():
        np.testing.assert_allclose(
            predict(model, support_x, query_x, statistics),
            answer,
            rtol=1e-4,
            atol=1e-5,
        )
    assert not np.allclose(expected["batch"], expected["support"], atol=0.01)
    assert not np.allclose(expected["batch"], expected["frozen"], atol=0.01)


@pytest.mark.parametrize("statistics", ["support", "frozen"])
def test_without_batch_statistics_each_query_is_answered_alone(statistics):
    model = network(trained_statistics=True)
    support_x, query_x = data()
    together = predict(model, support_x, query_x, statistics)
    alone = predict(model, support_x, query_x[:1], statistics)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5, atol=1e-6)


def episodes(queries):
    support_x, query_x = data()
    x = {
        "support_x": support_x[None],
        "support_y": np.arange(9)[None] % 3,
        "query_x": query_x[None, :queries],
    }
    return x, np.arange(queries)[None] % 3


def compiled(statistics, **arguments):
    model = keras_meta.MAML(
        network(**arguments), normalization_statistics=statistics
    )
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def test_batch_statistics_of_a_single_query_are_refused():
    x, y = episodes(queries=1)
    for call in (lambda m: m.fit(x, y), lambda m: m(x), lambda m: m.predict(x)):
        with pytest.raises(
            ValueError, match="single example.*'query_x'|`query_x`"
        ):
            call(compiled("batch"))
    assert compiled("support")(x).shape == (1, 1, 3)


def test_frozen_statistics_that_were_never_trained_are_refused():
    x, y = episodes(queries=4)
    model = compiled("frozen")
    with pytest.raises(
        ValueError, match="trained moving statistics.*'normaliz"
    ):
        model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="trained moving statistics"):
        model.adapt(x["support_x"][0], x["support_y"][0])
    trained = compiled("frozen", trained_statistics=True)
    trained.fit(x, y, verbose=0)


@pytest.mark.parametrize("statistics", ["batch", "support", "frozen"])
def test_adapted_model_predicts_with_fixed_statistics(statistics):
    x, _ = episodes(queries=6)
    model = compiled(statistics, trained_statistics=True)
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    predictions = adapted.predict(x["query_x"][0], verbose=0)
    alone = adapted.predict(x["query_x"][0][:1], verbose=0)
    np.testing.assert_allclose(predictions[:1], alone, rtol=1e-4, atol=1e-5)
    same = np.allclose(predictions, model(x)[0], rtol=1e-4, atol=1e-5)
    # An ordinary model cannot see the queries of a task together.
    assert same is (statistics != "batch")


def test_moments_equal_tensorflow_and_are_exact_in_second_order():
    x = tf.constant(np.random.default_rng(0).normal(size=(5, 3, 2)), "float64")

    def hessian(moments):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                _, variance = moments(x, [0, 1])
                value = tf.reduce_sum(variance**2)
            gradient = inner.gradient(value, x)
        return np.reshape(outer.jacobian(gradient, x), (30, 30))

    for axes, keepdims in [
        ([0], False),
        ([0, 1], True),
        ([1], False),
        (0, True),
    ]:
        theirs = tf.nn.moments(x, axes, keepdims=keepdims)
        with normalization.exact_second_order():
            ours = tf.nn.moments(x, axes, keepdims=keepdims)
        for one, other in zip(ours, theirs):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)

    def hessian_by_hand():
        # v_c = mean(x_c^2) - mean(x_c)^2, d2(v^2) = 2 dv dv' + 2 v d2v.
        n = 15
        flat = np.reshape(x, (n, 2))
        result = np.zeros((n, 2, n, 2))
        for c in range(2):
            centered = flat[:, c] - flat[:, c].mean()
            gradient = 2 / n * centered
            curvature = 2 / n * (np.eye(n) - 1 / n)
            result[:, c, :, c] = (
                2 * np.outer(gradient, gradient)
                + 2 * flat[:, c].var() * curvature
            )
        return np.reshape(result, (30, 30))

    expected = hessian_by_hand()
    with normalization.exact_second_order():
        np.testing.assert_allclose(hessian(tf.nn.moments), expected, atol=1e-12)
    # What TensorFlow does, and why the above is there. If this fails, the
    # fault is mended upstream and `exact_second_order()` can go.
    assert not np.allclose(hessian(tf.nn.moments), expected, atol=1e-3)


def test_group_normalization_is_exact_in_second_order_too(float64):
    network = keras.Sequential(
        [
            keras.Input((4, 4)),
            keras.layers.GroupNormalization(2),
            keras.layers.Activation("tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    generator = np.random.default_rng(0)
    x = {
        "support_x": generator.normal(size=(1, 5, 4, 4)),
        "support_y": generator.normal(size=(1, 5, 1)),
        "query_x": generator.normal(size=(1, 5, 4, 4)),
    }
    y = generator.normal(size=(1, 5, 1))
    model = keras_meta.MAML(network, inner_learning_rate=0.5)
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    before = [v.numpy() for v in model.trainable_variables]
    model.train_on_batch(x, y)
    gradient = [
        old - variable.numpy()
        for old, variable in zip(before, model.trainable_variables)
    ]
    # Along the gradient itself, by central differences.
    losses = []
    length = np.sqrt(sum(np.sum(g**2) for g in gradient))
    for shift in (1e-4, -1e-4):
        for variable, old, g in zip(
            model.trainable_variables, before, gradient
        ):
            variable.assign(old + shift * g / length)
        losses.append(float(np.mean((model(x) - y) ** 2)))
    slope = (losses[0] - losses[1]) / 2e-4
    np.testing.assert_allclose(slope, length, rtol=1e-6)
