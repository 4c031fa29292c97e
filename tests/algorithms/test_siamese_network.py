import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_prototypical_network import identity_network
from tests.algorithms.test_prototypical_network import random_episode

HEADS = ("distance", "verification")


def blob_pairs(**settings):
    return keras_meta.episodes.pairs(*contract.blobs(), **settings)


def random_pairs(batch=10, size=4, seed=0):
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(2, batch, size)).astype("float32")
    return {"first": first, "second": second}


def small_model(head="distance", units=8, **settings):
    return keras_meta.SiameseNetwork(
        keras_meta.backbones.mlp((8,), (16,), outputs=units),
        head=head,
        **settings,
    )


def compiled_for_pairs(head):
    model = small_model(head)
    if head == "distance":
        loss = keras_meta.losses.ContrastiveLoss()
        metrics = []
    else:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        metrics = [keras.metrics.BinaryAccuracy(threshold=0.0)]
    model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=metrics)
    return model


def learned_head(model, x, y):
    """The logit of Koch et al. for one pair of embeddings, in NumPy."""
    kernel, bias = (weight.numpy() for weight in model.verification.weights)
    return np.abs(x - y) @ kernel[:, 0] + bias[0]


@pytest.mark.parametrize(
    "name, distance",
    [
        ("euclidean", lambda a, b: np.linalg.norm(a - b)),
        ("squared_euclidean", lambda a, b: np.sum((a - b) ** 2)),
        (
            "cosine",
            lambda a, b: 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        ),
    ],
)
def test_pairs_and_episodes_equal_the_formula(name, distance):
    model = keras_meta.SiameseNetwork(identity_network(), distance=name)
    x = random_pairs()
    expected = [distance(*two) for two in zip(x["first"], x["second"])]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    x = random_episode()
    expected = [
        [
            [
                -np.mean([distance(q, s) for s in support[labels == way]])
                for way in range(3)
            ]
            for q in queries
        ]
        for support, labels, queries in zip(*x.values())
    ]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-4)


def test_verification_head_equals_the_formula():
    model = keras_meta.SiameseNetwork(identity_network(), head="verification")
    x = random_pairs()
    expected = [
        learned_head(model, *two) for two in zip(x["first"], x["second"])
    ]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    x = random_episode()
    expected = [
        [
            [
                np.mean(
                    [learned_head(model, q, s) for s in support[labels == way]]
                )
                for way in range(3)
            ]
            for q in queries
        ]
        for support, labels, queries in zip(*x.values())
    ]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_padded_support_counts_for_nothing(head):
    x = random_episode()
    noise = random_episode(seed=1)
    padded = {
        "support_x": np.concatenate([x["support_x"], noise["support_x"]], 1),
        "support_y": np.concatenate([x["support_y"], noise["support_y"]], 1),
        "support_weight": np.array([[1.0] * 7 + [0.0] * 7] * 2),
        "query_x": x["query_x"],
    }
    model = keras_meta.SiameseNetwork(identity_network(), head=head)
    np.testing.assert_allclose(model(x), model(padded), atol=1e-5)


def test_an_example_is_at_distance_zero_from_itself():
    model = keras_meta.SiameseNetwork(identity_network())
    # Far from zero, where a distance by products would round.
    first = random_pairs()["first"] + 1000
    np.testing.assert_array_equal(model({"first": first, "second": first}), 0)


@pytest.mark.parametrize("head", HEADS)
def test_gradient_is_finite_where_embeddings_coincide(head):
    model = compiled_for_pairs(head)
    x = np.zeros((6, 8), "float32")
    model.fit({"first": x, "second": x}, np.array([1, 0] * 3), verbose=0)
    assert all(np.all(np.isfinite(w)) for w in model.network.get_weights())


@pytest.mark.parametrize("head", HEADS)
def test_learns_from_pairs_and_tells_what_is_the_same(head):
    model = compiled_for_pairs(head)
    train = blob_pairs(batch_size=64)
    valid, test = (blob_pairs(pairs=300, seed=seed) for seed in (1, 2))
    before = model.evaluate(test, verbose=0, return_dict=True)
    history = model.fit(
        train,
        validation_data=valid,
        steps_per_epoch=75,
        epochs=2,
        verbose=0,
    )
    after = model.evaluate(test, verbose=0, return_dict=True)
    assert after["loss"] < 0.7 * before["loss"]
    assert len(history.history["val_loss"]) == 2
    answers = model.predict(test, verbose=0)
    assert answers.shape == (300,)

    result = model.calibrate(valid, false_accept_rate=0.05)
    assert 0 < result.false_accept_rate <= 0.05
    assert result.threshold == pytest.approx(float(model.threshold))
    x, same = next(iter(valid.unbatch().batch(300)))
    accepted = model.same(x["first"], x["second"])
    assert accepted.dtype == bool and accepted.shape == (300,)
    same = same.numpy() == 1
    # The pair that sets the threshold may fall on either side of it, since
    # another size of batch may round otherwise.
    assert np.mean(accepted[~same]) == pytest.approx(
        result.false_accept_rate, abs=1.5 / 150
    )
    assert np.mean(~accepted[same]) == pytest.approx(
        result.false_reject_rate, abs=1.5 / 150
    )
    assert np.mean(accepted[same]) > 0.8
    x, same = next(iter(test.unbatch().batch(300)))
    accepted = model.same(x["first"], x["second"])
    assert np.mean(accepted == (same.numpy() == 1)) > 0.75


@pytest.mark.parametrize("head", HEADS)
def test_threshold_accepts_small_distances_and_high_logits(head):
    model = keras_meta.SiameseNetwork(identity_network(1), head=head)
    if head == "verification":
        model.verification.set_weights([np.array([[-2.0]]), np.array([3.0])])
    first = np.zeros((8, 1), "float32")
    second = np.arange(1, 9, dtype="float32")[:, None]
    # Worked out by hand: pairs at distances 1 to 8, the same up to 4 but
    # for the one at 3.
    same = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    pairs = tf.data.Dataset.from_tensor_slices(
        ({"first": first, "second": second}, same)
    ).batch(3)
    for rate, distance, accepted in ((0.0, 3.0, 2), (0.2, 5.0, 4)):
        result = model.calibrate(pairs, false_accept_rate=rate)
        expected = distance if head == "distance" else 3.0 - 2.0 * distance
        assert float(model.threshold) == result.threshold == expected
        assert result.false_accept_rate == rate
        np.testing.assert_array_equal(
            model.same(first, second), np.arange(8) < accepted
        )


@pytest.mark.parametrize("head", HEADS)
def test_threshold_is_saved_and_pairs_answer_the_same(head, tmp_path):
    model = small_model(head)
    model.calibrate(blob_pairs(pairs=100))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x, _ = next(iter(blob_pairs(seed=3)))
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), loaded.predict(x, verbose=0)
    )
    np.testing.assert_array_equal(
        model.same(x["first"], x["second"]),
        loaded.same(x["first"], x["second"]),
    )
    assert float(model.threshold) == float(loaded.threshold)


def test_examples_give_embeddings_and_train_by_triplets():
    x, y = contract.blobs()
    # The other features are louder than those that tell classes apart.
    noise = np.random.default_rng(0).normal(size=(400, 4)).astype("float32")
    x = np.concatenate([x[:, :4], 3 * noise], axis=1)
    model = small_model()
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras_meta.losses.TripletLoss(),
    )
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), model.network.predict(x, verbose=0)
    )
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=100, epochs=40, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 0.7 * before


def test_one_model_takes_pairs_examples_and_episodes_in_turn():
    model = compiled_for_pairs("distance")
    model.fit(blob_pairs(), steps_per_epoch=2, verbose=0)
    episodes = contract.blob_episodes(episodes=4)
    assert model.predict(episodes, verbose=0).shape == (4, 12, 3)
    x, _ = next(iter(blob_pairs()))
    assert model.predict(x, verbose=0).shape == (32,)
    assert model.predict(contract.blobs()[0], verbose=0).shape == (400, 8)
    result = keras_meta.evaluate_episodes(model, episodes)
    assert result.metric == "accuracy" and result.mean > 0.4


def test_pairs_may_come_from_a_generator():
    model = compiled_for_pairs("verification")
    batch = next(iter(blob_pairs()))

    def generate():
        for _ in range(3):
            yield tuple(
                tf.nest.map_structure(np.asarray, part) for part in batch
            )

    model.fit(generate(), steps_per_epoch=2, shuffle=False, verbose=0)


@pytest.mark.parametrize("head", HEADS)
def test_graph_steps_on_pairs_equal_eager_and_compiled_ones(head):
    x, y = next(iter(blob_pairs()))
    results = []
    for settings in ({}, {"run_eagerly": True}, {"jit_compile": True}):
        keras.utils.set_random_seed(0)
        model = small_model(head, ways=3)
        loss = keras_meta.losses.ContrastiveLoss()
        if head == "verification":
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss=loss, **settings)
        value = model.train_on_batch(x, y)
        results.append([value, *model.get_weights()])
    for other in results[1:]:
        for expected, actual in zip(results[0], other):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_half_precision_answers_in_single(head):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled_for_pairs(head)
        assert model.network.compute_dtype == "float16"
        x, y = next(iter(blob_pairs()))
        answers = model(x)
        assert answers.dtype == "float32"
        symbolic = tf.nest.map_structure(
            lambda leaf: keras.KerasTensor(leaf.shape, leaf.dtype.name), x
        )
        spec = model.compute_output_spec(symbolic)
        assert spec.dtype == "float32" and spec.shape == (32,)
        model.fit(blob_pairs(), steps_per_epoch=2, verbose=0)
        assert np.all(np.isfinite(model.predict(x, verbose=0)))
        assert model(next(iter(contract.blob_episodes()))[0]).dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_learned_distance_is_trained_by_pairs_and_saved(tmp_path):
    distance = keras_meta.distances.LearnedDistance(4)
    model = keras_meta.SiameseNetwork(identity_network(), distance=distance)
    model.compile("adam", loss=keras_meta.losses.ContrastiveLoss())
    before = distance.get_weights()[0]
    x = random_pairs()
    model.fit(x, np.arange(10) % 2, verbose=0)
    assert np.all(distance.get_weights()[0] != before)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(x), loaded(x))


def test_subclassed_network_can_have_the_verification_head():
    @keras.saving.register_keras_serializable(package="test")
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(5)

        def call(self, x):
            return self.dense(x)

    network = Own()
    network(np.zeros((1, 4), "float32"))
    model = keras_meta.SiameseNetwork(network, head="verification")
    assert model(random_pairs()).shape == (10,)
    assert model.task_distance(np.zeros((2, 4)), np.zeros((3, 4))) == 0


def energy_distance(x, y):
    """Székely and Rizzo's formula with loops."""

    def mean(one, other):
        return np.mean([[np.linalg.norm(a - b) for a in one] for b in other])

    return np.sqrt(2 * mean(x, y) - mean(x, x) - mean(y, y))


def test_task_distance_is_the_energy_distance_of_embeddings():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(12, 8)).astype("float32")
    y = generator.normal(size=(7, 8)).astype("float32") + 0.5
    model = small_model()
    expected = energy_distance(model.network(x), model.network(y))
    assert model.task_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert model.task_distance(y, x) == pytest.approx(expected, rel=1e-5)
    assert model.task_distance(x, x) == 0
    assert model.task_distance(x, x[::-1].tolist()) < 1e-3
    # As many times the same set is the same distribution.
    assert model.task_distance(x, np.repeat(x, 40, axis=0)) < 1e-3


def test_task_distance_obeys_the_triangle_and_sees_spread():
    model = keras_meta.SiameseNetwork(identity_network())
    generator = np.random.default_rng(0)
    one, two, three = generator.normal(size=(3, 20, 4)).astype("float32")
    two = two + 0.5
    three = three * 2
    assert model.task_distance(one, three) <= model.task_distance(
        one, two
    ) + model.task_distance(two, three)
    same_mean = one.mean(axis=0) + 3 * (one - one.mean(axis=0))
    assert model.task_distance(one, same_mean) > 0.3


@pytest.mark.parametrize(
    "examples, message",
    [
        (np.zeros((0, 4)), r"at least one example.*\(4,\).*Received: \(0, 4\)"),
        (np.zeros((3, 5)), r"shape of the network's input.*Received: \(3, 5\)"),
        (np.zeros(4), r"axis of examples before it. Received: \(4,\)"),
        (np.full((2, 4), np.nan), "finite. Received: NaN.*`other_examples`"),
    ],
)
def test_task_distance_refuses(examples, message):
    model = keras_meta.SiameseNetwork(identity_network())
    with pytest.raises(ValueError, match=message):
        model.task_distance(np.zeros((2, 4)), examples)


@pytest.mark.parametrize(
    "change, labels, message",
    [
        ({"second": None}, None, r"missing: \['second'\]"),
        ({"third": np.zeros(4)}, None, r"unknown: \['third'\]"),
        ({"second": {"a": np.zeros((4, 8))}}, None, "Both.*same parts.*Rec"),
        ({"second": np.zeros((4, 5))}, None, r"same shape.*\(4, 8\).*\(4, 5\)"),
        ({"second": np.zeros((3, 8))}, None, r"same shape.*\(4, 8\).*\(3, 8\)"),
        ({}, [0, 1, 2, 1], r"1 where both.*Received: labels \[2\]"),
        ({}, [0.0, 1.0, 0.5, 1.0], r"1 where both.*Received: labels \[0.5\]"),
        ({}, [0, 1, 0], r"labels of the shape `\[batch\]`.*\(3,\).*\(4, 8\)"),
        ({}, [[0, 1]] * 4, r"labels of the shape `\[batch\]`.*\(4, 2\)"),
    ],
)
def test_refuses_malformed_pairs(change, labels, message):
    model = compiled_for_pairs("distance")
    x = {"first": np.zeros((4, 8)), "second": np.zeros((4, 8)), **change}
    x = {key: value for key, value in x.items() if value is not None}
    y = np.array([0, 1, 0, 1] if labels is None else labels)
    for call in (
        lambda: model.fit(x, y, verbose=0),
        lambda: model.evaluate(x, y, verbose=0),
        lambda: model.train_on_batch(x, y),
        lambda: model.fit(
            tf.data.Dataset.from_tensors((x, y)),
            verbose=0,
        ),
        lambda: model.calibrate(tf.data.Dataset.from_tensors((x, y))),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    if labels is None:
        for call in (lambda: model(x), lambda: model.predict(x, verbose=0)):
            with pytest.raises(ValueError, match=message):
                call()


def test_refuses_other_bad_input():
    with pytest.raises(ValueError, match="`head` must be one of.*'sum'"):
        small_model("sum")
    with pytest.raises(ValueError, match="`distance` must.*'manhattan'"):
        small_model(distance="manhattan")
    with pytest.raises(ValueError, match="no distance to choose.*'cosine'"):
        small_model("verification", distance="cosine")
    images = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="flat embedding.*Flatten"):
        keras_meta.SiameseNetwork(images)
    model = compiled_for_pairs("distance")
    x = np.zeros((4, 8), "float32")
    for wrong in ({"left": x, "right": x}, (x, x)):
        with pytest.raises(ValueError, match="'first' and 'second', or epi"):
            model.fit(wrong, np.zeros(4), verbose=0)
    with pytest.raises(ValueError, match="labels must be given"):
        model.fit({"first": x, "second": x}, verbose=0)
    with pytest.raises(ValueError, match="steps_per_epoch.*`pairs=`"):
        model.fit(blob_pairs(), verbose=0)
    with pytest.raises(ValueError, match="never calibrated. Call"):
        model.same(x, x)


def test_lists_may_be_compared():
    model = keras_meta.SiameseNetwork(identity_network(2))
    model.threshold.assign(1.0)
    # Neither is cut to the integers of the other.
    answers = model.same([[0, 0], [0, 0]], [[0.9, 0.9], [0.5, 0.5]])
    np.testing.assert_array_equal(answers, [False, True])


def test_calibrate_leaves_out_pairs_without_weight():
    x, y = next(iter(blob_pairs()))
    weight = np.arange(32) < 20
    results = []
    for parts in (
        (x, y, weight.astype("float32")),
        (tf.nest.map_structure(lambda leaf: leaf[:20], x), y[:20]),
    ):
        model = keras_meta.SiameseNetwork(identity_network(8))
        pairs = tf.data.Dataset.from_tensors(parts)
        results.append(model.calibrate(pairs, false_accept_rate=0.3))
    for name in ("threshold", "false_accept_rate", "false_reject_rate"):
        values = [getattr(result, name) for result in results]
        np.testing.assert_allclose(*values, rtol=1e-6)


def test_calibrates_on_several_replicas():
    program = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
logical = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, logical)
import keras, keras_meta
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    inputs = keras.Input((1,))
    network = keras.Model(inputs, keras.layers.Identity()(inputs))
    model = keras_meta.SiameseNetwork(network)
    x = {"first": tf.zeros((3, 1)), "second": tf.constant([[1.], [2.], [3.]])}
    pairs = tf.data.Dataset.from_tensors((x, [1, 0, 1]))
    assert model.calibrate(pairs).threshold == 2.0
    assert model.threshold.numpy() == 2.0
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_calibrate_refuses_what_it_cannot_use():
    model = small_model()
    x, y = next(iter(blob_pairs()))
    make = tf.data.Dataset.from_tensors
    with pytest.raises(TypeError, match="tf.data.Dataset.*Received: dict"):
        model.calibrate(x)
    with pytest.raises(ValueError, match="finite.*`pairs=`"):
        model.calibrate(blob_pairs())
    for other in (
        make(x),
        make((x["first"], y)),
        contract.blob_episodes(episodes=4),
    ):
        with pytest.raises(ValueError, match="`pairs` must hold"):
            model.calibrate(other)
    with pytest.raises(ValueError, match="32 to accept and 0 to refuse"):
        model.calibrate(make((x, tf.ones_like(y))))
    with pytest.raises(ValueError, match="0 to accept and 0 to refuse"):
        model.calibrate(blob_pairs(pairs=4).take(0))
    with pytest.raises(ValueError, match="false_accept_rate=1"):
        model.calibrate(blob_pairs(pairs=4), false_accept_rate=1)
    assert np.isnan(model.threshold.numpy())


def compiled_for_episodes(head):
    model = small_model(head, ways=3)
    model.compile(
        keras.optimizers.Adam(0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class TestDistance(contract.AlgorithmContract):
    def make_model(self):
        return compiled_for_episodes("distance")


class TestVerification(contract.VariantContract):
    def make_model(self):
        return compiled_for_episodes("verification")
