import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_conditional_neural_process import dense
from tests.algorithms.test_conditional_neural_process import one_hot
from tests.algorithms.test_generating_learners import hyper_network
from tests.algorithms.test_generating_learners import random_tasks
from tests.algorithms.test_generating_learners import whole_network
from tests.algorithms.test_generating_learners import with_random_weights


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (16,), outputs=3)
    model = keras_meta.HyperNetwork(
        network, **{"generates": "all", "hidden_units": (32,)} | settings
    )
    model.compile(
        keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def generated_by_hand(model, support_x, support_y):
    """The numbers that are generated for one task."""
    pairs = np.concatenate(
        [support_x, one_hot(support_y, model.regression)], axis=1
    )
    codes = [dense(pair, model.pairs.get_weights()) for pair in pairs]
    code = np.maximum(np.mean(codes, axis=0), 0.0)
    return dense(code, model.generator.get_weights())


def weights_by_hand(model, numbers):
    """The weights of the network of one task, and how many are generated."""
    numbers, factors = list(numbers), list(model.left_factors)

    def take(shape):
        taken = [numbers.pop(0) for _ in range(int(np.prod(shape)))]
        return np.reshape(taken, shape)

    weights = []
    shared = model.network.get_weights()
    for place, weight in enumerate(shared):
        kernel = weight.ndim == 2
        if model.generates == "head" and place < len(shared) - 2:
            weights.append(weight)
        elif model.generates == "film" and kernel:
            weights.append(weight * (1 + take(weight.shape[1:])))
        elif model.generates == "low_rank" and place == 0:
            left = factors.pop(0).numpy()
            left = left + take(left.shape)
            right = take((left.shape[1], weight.shape[1]))
            weights.append(weight + left @ right)
        else:
            weights.append(weight + take(weight.shape))
    assert not numbers
    return weights


# 4 * 6 + 6 + 6 * 3 + 3; the last layer; (4 + 6) * 2 + 6 and, where rank 2
# would save nothing, 6 * 3 + 3; each output's factor and bias.
COUNTS = {"all": 51, "head": 21, "low_rank": 47, "film": 18}


@pytest.mark.parametrize("generates", COUNTS)
@pytest.mark.parametrize("regression", [False, True])
def test_answers_are_those_of_the_network_with_generated_weights(
    generates, regression
):
    model = with_random_weights(hyper_network(generates)(regression))
    assert model.generated_weights == COUNTS[generates]
    assert len(model.left_factors) == (generates == "low_rank")
    x = random_tasks(regression, tasks=2)
    answers = model(x)
    copy = keras.models.clone_model(model.network)
    for task in range(2):
        numbers = generated_by_hand(
            model, x["support_x"][task], x["support_y"][task]
        )
        assert len(numbers) == COUNTS[generates]
        copy.set_weights(weights_by_hand(model, numbers))
        np.testing.assert_allclose(
            answers[task], copy(x["query_x"][task]), rtol=1e-3, atol=1e-4
        )
        # And so is the model that `adapt()` gives.
        adapted = model.adapt(x["support_x"][task], x["support_y"][task])
        assert type(adapted) is type(model.network)
        for one, other in zip(adapted.get_weights(), copy.get_weights()):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_film_scales_what_a_layer_gives_before_its_activation():
    model = with_random_weights(hyper_network("film")(False))
    x = random_tasks(tasks=1)
    numbers = generated_by_hand(model, x["support_x"][0], x["support_y"][0])
    first, first_bias, second, second_bias = model.network.get_weights()
    scales = numbers[:6], numbers[12:15]
    shifts = first_bias + numbers[6:12], second_bias + numbers[15:]
    hidden = np.tanh((1 + scales[0]) * (x["query_x"][0] @ first) + shifts[0])
    expected = (1 + scales[1]) * (hidden @ second) + shifts[1]
    np.testing.assert_allclose(model(x)[0], expected, rtol=1e-3, atol=1e-4)


def test_film_of_convolutions_is_one_factor_for_each_filter():
    network = keras_meta.backbones.conv4((8, 8, 1), filters=3, outputs=2)
    encoder = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    counts = {
        generates: keras_meta.HyperNetwork(
            network, encoder, generates=generates, rank=1, code_size=4
        ).generated_weights
        for generates in COUNTS
    }
    shapes = [variable.shape for variable in network.trainable_variables]
    assert any(len(shape) == 4 for shape in shapes)
    assert counts["all"] == sum(np.prod(shape) for shape in shapes)
    assert counts["film"] == sum(shape[-1] for shape in shapes)
    assert counts["low_rank"] == sum(
        min(np.prod(shape), np.prod(shape[:-1]) + shape[-1]) for shape in shapes
    )
    assert counts["head"] == np.prod(shapes[-2]) + 2


def test_film_of_depthwise_convolutions_is_one_factor_for_each_output():
    network = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.DepthwiseConv2D(3, depth_multiplier=3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = keras_meta.HyperNetwork(
        network, generates="film", hidden_units=(7,), code_size=5
    )
    with_random_weights(model)
    assert model.generated_weights == 6 + 6
    generator = np.random.default_rng(0)
    x = {
        "support_x": generator.normal(size=(1, 3, 4, 4, 2)),
        "support_y": np.array([[0, 1, 5]]),
        "query_x": generator.normal(size=(1, 2, 4, 4, 2)),
    }
    x = {key: value.astype("float32") for key, value in x.items()}
    x["support_y"] = x["support_y"].astype("int32")
    pairs = np.concatenate(
        [x["support_x"][0].reshape(3, -1), np.eye(6)[x["support_y"][0]]], 1
    )
    codes = [dense(pair, model.pairs.get_weights()) for pair in pairs]
    numbers = dense(
        np.maximum(np.mean(codes, axis=0), 0), model.generator.get_weights()
    )
    plain = network(x["query_x"][0]).numpy() - network.get_weights()[1]
    expected = (1 + numbers[:6]) * plain
    expected = expected + network.get_weights()[1] + numbers[6:]
    np.testing.assert_allclose(model(x)[0], expected, rtol=1e-3, atol=1e-3)


def normalized_model(statistics, moved=True):
    network = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    if moved:
        network.layers[1].moving_mean.assign([0.5] * 6)
    return with_random_weights(
        keras_meta.HyperNetwork(
            network,
            generates="film",
            hidden_units=(7,),
            code_size=5,
            normalization_statistics=statistics,
        )
    )


@pytest.mark.parametrize("statistics", ["batch", "support", "frozen"])
def test_queries_matter_to_each_other_only_with_statistics_of_the_batch(
    statistics,
):
    model = normalized_model(statistics)
    x = random_tasks(tasks=1)
    others = {**x, "query_x": x["query_x"].copy()}
    others["query_x"][:, 1:] *= 2.0
    same = np.allclose(model(x)[:, 0], model(others)[:, 0], atol=1e-4)
    assert same is (statistics != "batch")


def test_statistics_of_a_padded_support_set_are_those_of_the_rest():
    model = normalized_model("support")
    x = random_tasks(tasks=1)
    y = {
        **x,
        "support_x": np.insert(x["support_x"], 1, np.nan, axis=1),
        "support_y": np.insert(x["support_y"], 1, 0, axis=1),
        "support_weight": np.array([[1.0, 0.0, 1.0, 1.0, 1.0]], "float32"),
    }
    np.testing.assert_allclose(model(y), model(x), rtol=1e-3, atol=1e-4)


def test_encoder_and_factors_are_saved(tmp_path):
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    model = with_random_weights(
        keras_meta.HyperNetwork(
            whole_network(), encoder, generates="low_rank", code_size=4
        )
    )
    x = random_tasks()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    # The encoder reads the support set, and is trained.
    encoder.set_weights([2 * weight for weight in encoder.get_weights()])
    assert not np.allclose(loaded(x), model(x), atol=1e-2)
    trained = {id(variable) for variable in model.trainable_variables}
    assert {id(v) for v in encoder.trainable_variables} <= trained


def test_an_encoder_of_padded_examples_has_a_finite_gradient():
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    model = keras_meta.HyperNetwork(whole_network(), encoder, code_size=4)
    x = random_tasks(tasks=1)
    x["support_x"][0, 2] = np.nan
    x["support_weight"] = np.array([[1.0, 1.0, 0.0, 1.0]], "float32")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(x))
    for slope in tape.gradient(total, encoder.trainable_variables):
        assert np.all(np.isfinite(slope)) and np.any(slope)


def test_refuses_a_network_that_is_too_large():
    network = keras.Sequential(
        [
            keras.Input((400,)),
            keras.layers.Dense(500, use_bias=False),
            keras.layers.Dense(2, use_bias=False),
        ]
    )
    message = (
        "codes of size 128.*'all'.*201,000 numbers.*25,728,000 weights.*"
        "low_rank', rank=4 would generate 4,600; .*film' would generate 502; "
        ".*head' would generate 1,000"
    )
    with pytest.raises(ValueError, match=message):
        keras_meta.HyperNetwork(network, generates="all")
    # Smaller codes make it possible, and so does what is suggested.
    keras_meta.HyperNetwork(network, generates="film")


def test_refuses_bad_arguments():
    for settings, message in (
        ({"generates": "some"}, "`generates` must be one of.*'some'"),
        ({"rank": 0}, "`rank` must be"),
        ({"hidden_units": 3}, "`hidden_units` must be a sequence"),
        ({"code_size": 0}, "`code_size` must be"),
        ({"regression": 1.5}, "`regression` must be one of"),
        ({"normalization_statistics": "all"}, "`normalization_statistics`"),
        ({"task_mapping": "both"}, "`task_mapping` must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_meta.HyperNetwork(whole_network(), **settings)
    frozen = whole_network()
    frozen.trainable = False
    with pytest.raises(ValueError, match="must have trainable weights"):
        keras_meta.HyperNetwork(frozen)
    anything = keras.Sequential(
        [
            keras.Input((None,)),
            keras.layers.Lambda(lambda x: x[:, :2], output_shape=(2,)),
            keras.layers.Dense(3),
        ]
    )
    with pytest.raises(ValueError, match="Without an `encoder`.*known shape"):
        keras_meta.HyperNetwork(anything)
    x = random_tasks()
    with pytest.raises(ValueError, match="trained moving statistics"):
        normalized_model("frozen", moved=False)(x)
    with pytest.raises(ValueError, match="single example.*`query_x`"):
        normalized_model("batch")({**x, "query_x": x["query_x"][:, :1]})


class TestHyperNetwork(contract.AlgorithmContract):
    steps_per_epoch = 250

    def make_model(self):
        return make_model()
