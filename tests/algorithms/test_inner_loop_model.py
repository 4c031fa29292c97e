"""What goes wrong at the edges of an inner loop, and must not."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms.test_maml import compiled
from tests.algorithms.test_maml import linear_network
from tests.algorithms.test_maml import outer_gradient
from tests.algorithms.test_maml import random_episodes
from tests.algorithms.test_maml import relative_difference


class ThreeLayers(keras.Model):
    """Subclassed, so that a clone forgets which layer is frozen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(5, use_bias=False)
        self.second = keras.layers.Dense(5, use_bias=False)
        self.third = keras.layers.Dense(5, use_bias=False)

    def call(self, x):
        return self.third(self.second(self.first(x)))


def test_adapted_copy_of_a_network_with_a_frozen_layer():
    network = ThreeLayers()
    network(np.zeros((1, 5), "float32"))
    network.first.trainable = False
    x, _ = random_episodes()
    x["support_y"] = np.repeat(x["support_y"], 5, axis=-1)
    model = keras_meta.MAML(network, inner_loss="mse", inner_learning_rate=0.1)
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    np.testing.assert_allclose(
        adapted(x["query_x"][0]), model(x)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("first_order", [False, True])
def test_gradient_through_a_call_is_that_of_training(first_order):
    x, y = random_episodes()
    model = compiled(
        linear_network(),
        "mse",
        inner_steps=2,
        inner_learning_rate=0.1,
        first_order=first_order,
    )
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradient = tape.gradient(loss, model.trainable_variables[0].value)
    expected = outer_gradient(model, x, y)
    assert relative_difference([gradient], expected) < 1e-5


def test_mixed_precision_does_not_round_small_inner_steps():
    x, _ = random_episodes()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras_meta.MAML(
            keras_meta.backbones.mlp((5,)),
            inner_loss="mse",
            inner_steps=5,
            inner_learning_rate=1e-4,
        )
        x["support_y"] = 300.0 + x["support_y"]
        before = np.asarray(model.network(x["query_x"][0]), "float32")
        called = np.asarray(model(x)[0], "float32")
        stepped = np.asarray(model.predictions_per_step(x)[-1][0], "float32")
        assert np.all(np.isfinite(called))
        # In half precision nothing at all would happen in most weights.
        assert np.abs(stepped - before).mean() > 0.01
        np.testing.assert_allclose(called, stepped, rtol=0.01, atol=0.01)
    finally:
        keras.config.set_dtype_policy("float32")


def test_changing_trainable_later_is_refused():
    x, y = random_episodes()
    model = compiled(keras_meta.backbones.mlp((5,)), "mse")
    model.network.layers[1].trainable = False
    with pytest.raises(ValueError, match="trainable when.*Received"):
        model(x)
    with pytest.raises(ValueError, match="trainable when.*Received"):
        model.fit(x, y, verbose=0)


def test_threads_do_not_disturb_each_other():
    network = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(momentum=0.7),
            keras.layers.Dense(1),
        ]
    )
    model = keras_meta.MAML(network, inner_loss="mse")
    x, _ = random_episodes()
    expected = model(x)
    moments = tf.nn.moments
    answers, failures = [], []

    def ask():
        try:
            answers.extend(model(x) for _ in range(5))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(answers) == 15
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert network.layers[1].momentum == 0.7
    assert tf.nn.moments is moments


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_nan_in_the_queries_stops_fit_and_spares_the_network(optimizer):
    x, y = random_episodes()
    model = compiled(keras_meta.backbones.mlp((5,)), "mse", optimizer)
    model.fit(x, y, verbose=0)
    y[1, 2] = np.nan
    with pytest.raises(
        keras_meta.DivergenceError, match="query loss or its gradient .in 1"
    ):
        model.fit(x, y, verbose=0)
    assert all(np.all(np.isfinite(w)) for w in model.network.get_weights())


def test_divergence_on_one_replica_holds_back_all():
    # One logical device, so that this only tells that the branch runs; two
    # devices must be asked for before TensorFlow starts.
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = compiled(keras_meta.backbones.mlp((5,)), "mse")
    x, y = random_episodes()
    history = model.fit(x, y, verbose=0).history
    assert np.isfinite(history["loss"][0])


def test_labels_are_converted_as_keras_converts_them():
    x, y = random_episodes()

    def difference(y_true, y_pred):
        return keras.ops.abs(y_true - y_pred)[:, 0]

    model = compiled(linear_network(), difference)
    wide = {key: value.astype("float64") for key, value in x.items()}
    np.testing.assert_allclose(model(x), model(wide), atol=1e-6)
    model.adapt(wide["support_x"][0], wide["support_y"][0])
    whole = {**x, "support_y": x["support_y"].astype("int32")}
    model.fit(whole, y.astype("int32"), verbose=0)


def batch_normalized(**arguments):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.BatchNormalization(**arguments),
            keras.layers.Dense(1),
        ]
    )


@pytest.mark.parametrize("option", ["renorm", "synchronized"])
def test_batch_normalization_that_cannot_be_right_is_refused(option):
    try:
        network = batch_normalized(**{option: True})
    except (TypeError, ValueError) as error:
        pytest.skip(f"this Keras has no {option}: {error}")
    with pytest.raises(ValueError, match=f"must not use `{option}`.*Received"):
        keras_meta.MAML(network)


def test_frozen_batch_normalization_keeps_its_statistics():
    network = batch_normalized(trainable=False)
    x, _ = random_episodes()
    model = keras_meta.MAML(network, inner_loss="mse")
    together = model(x)
    alone = model({**x, "query_x": x["query_x"][:, :1]})
    np.testing.assert_allclose(together[:, :1], alone, atol=1e-5)


def two_heads(outputs):
    inputs = keras.Input((5,))
    return keras.Model(
        inputs,
        {
            name: keras.layers.Dense(outputs, name=name)(inputs)
            for name in ("u", "v")
        },
    )


def test_two_classification_heads_train():
    x, y = random_episodes(ways=3)
    x["support_y"] = {"u": x["support_y"], "v": x["support_y"][:, ::-1]}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras_meta.MAML(two_heads(3), inner_loss=loss)
    model.compile("adam", loss={"u": loss, "v": loss})
    model.fit(x, {"u": y, "v": y}, batch_size=3, verbose=0)
    with pytest.raises(ValueError, match="one output per way"):
        model.fit(x, {"u": y, "v": y + 3}, batch_size=3, verbose=0)


def test_heads_without_labels_are_refused():
    x, _ = random_episodes()
    x["support_y"] = {"u": x["support_y"]}
    model = keras_meta.MAML(two_heads(1), inner_loss="mse")
    with pytest.raises(ValueError, match="structure of the network's outputs"):
        model(x)


def test_a_loss_for_each_output_needs_an_inner_loss():
    x, _ = random_episodes()
    model = keras_meta.MAML(two_heads(1))
    model.compile("adam", loss={"u": "mse", "v": "mse"})
    with pytest.raises(ValueError, match="`inner_loss` must be given"):
        model(x)


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
def test_labels_must_be_given(method):
    x, _ = random_episodes()
    with pytest.raises(ValueError, match="labels of the queries.*y=None"):
        getattr(compiled(linear_network(), "mse"), method)(x)


def test_refuses_class_weights_and_sample_weights_that_do_not_fit():
    x, y = random_episodes()
    model = compiled(linear_network(), "mse")
    with pytest.raises(ValueError, match="`class_weight` must not"):
        model.fit(x, y, class_weight={0: 1.0})
    for shape in [(3, 1), (2, 7)]:
        with pytest.raises(ValueError, match="sample_weight"):
            model.fit(x, y, sample_weight=np.ones(shape))


def test_refuses_a_support_set_without_weight():
    x, _ = random_episodes()
    model = compiled(linear_network(), "mse")
    with pytest.raises(ValueError, match="`support_weight` is 0 throughout"):
        model({**x, "support_weight": np.zeros((3, 6))})


def test_refuses_an_inner_loss_that_sums():
    with pytest.raises(ValueError, match="`inner_loss` must be a mean.*'sum'"):
        keras_meta.MAML(
            linear_network(), inner_loss=keras.losses.MeanSquaredError("sum")
        )


def test_refuses_an_optimizer_as_update_rule():
    with pytest.raises(TypeError, match="UpdateRule.*Received.*SGD"):
        keras_meta.MAML(linear_network(), update_rule=keras.optimizers.SGD())


def test_lists_are_arrays():
    x, _ = random_episodes()
    model = compiled(linear_network(), "mse")
    np.testing.assert_allclose(
        model.adapt(x["support_x"][0], x["support_y"][0].tolist())(
            x["query_x"][0]
        ),
        model(x)[0],
        atol=1e-5,
    )


def test_integer_targets_of_a_regression_are_no_classes():
    x, y = random_episodes()
    model = compiled(linear_network(), "mse")
    episodes = tf.data.Dataset.from_tensors((x, np.rint(y).astype("int32")))
    result = keras_meta.evaluate_episodes(model, episodes)
    assert result.metric == "mean_squared_error"


def test_steps_may_be_given_by_position():
    episodes = keras_meta.episodes.sinusoids()
    model = compiled(keras_meta.backbones.mlp(), "mse")
    assert model.predict(episodes, None, 0, 2).shape == (50, 10, 1)
