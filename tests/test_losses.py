import itertools
import statistics

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta

MININGS = ("semi_hard", "hard", "all")


def labeled_embeddings(batch=12, classes=4, size=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, batch)
    return labels, generator.normal(size=(batch, size)).astype("float32")


def triplets(labels, embeddings, mining):
    """Returns (anchor, positive, negative) as the papers choose them."""
    everyone = range(len(labels))
    distance = lambda a, b: np.linalg.norm(  # noqa: E731
        embeddings[a].astype("float64") - embeddings[b]
    )
    chosen = []
    for a in everyone:
        positives = [p for p in everyone if labels[p] == labels[a] and p != a]
        negatives = [n for n in everyone if labels[n] != labels[a]]
        if not positives or not negatives:
            continue
        if mining == "all":
            chosen += [
                (a, *two) for two in itertools.product(positives, negatives)
            ]
        elif mining == "hard":
            farthest = max(positives, key=lambda p: distance(a, p))
            nearest = min(negatives, key=lambda n: distance(a, n))
            chosen.append((a, farthest, nearest))
        else:
            for p in positives:
                ordered = sorted(negatives, key=lambda n: distance(a, n))
                farther = [
                    n for n in ordered if distance(a, n) > distance(a, p)
                ]
                chosen.append((a, p, farther[0] if farther else ordered[-1]))
    return chosen


def triplet_loss_by_hand(labels, embeddings, mining, margin):
    losses = [
        max(
            0,
            np.linalg.norm(embeddings[a] - embeddings[p])
            - np.linalg.norm(embeddings[a] - embeddings[n])
            + margin,
        )
        for a, p, n in triplets(labels, embeddings, mining)
    ]
    return np.mean(losses)


def gradient(loss, y_true, y_pred):
    y_pred = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(y_true, y_pred)
    return tape.gradient(value, y_pred).numpy()


@pytest.mark.parametrize("margin", [0.3, 1.0, 2.5])
def test_contrastive_loss_equals_the_formula(margin):
    generator = np.random.default_rng(0)
    distance = generator.uniform(0, 3, 20).astype("float32")
    same = np.arange(20) % 2
    expected = [
        d**2 if s else max(0.0, margin - d) ** 2 for d, s in zip(distance, same)
    ]
    loss = keras_meta.losses.ContrastiveLoss(margin=margin)
    assert float(loss(same, distance)) == pytest.approx(np.mean(expected), 1e-5)
    np.testing.assert_allclose(loss.call(same, distance), expected, rtol=1e-4)
    # A column of either is the same, and never spreads to a square.
    for y_true in (same, same[:, None]):
        for y_pred in (distance, distance[:, None]):
            assert loss.call(y_true, y_pred).shape == (20,)
            assert float(loss(y_true, y_pred)) == float(loss(same, distance))


def test_contrastive_loss_has_the_slope_of_the_formula():
    distance = np.array([0.0, 0.4, 0.0, 0.4, 1.7], "float32")
    same = np.array([1, 1, 0, 0, 0])
    loss = keras_meta.losses.ContrastiveLoss(reduction="sum")
    np.testing.assert_allclose(
        gradient(loss, same, distance), [0, 0.8, -2, -1.2, 0], atol=1e-6
    )


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplet_loss_equals_loops(mining, margin):
    loss = keras_meta.losses.TripletLoss(margin=margin, mining=mining)
    for seed in range(5):
        # Few examples of many classes: some anchors have no positive.
        labels, embeddings = labeled_embeddings(classes=6, seed=seed)
        assert (
            len(set(a for a, _, _ in triplets(labels, embeddings, "all"))) < 12
        )
        expected = triplet_loss_by_hand(labels, embeddings, mining, margin)
        for y_true in (labels, labels[:, None]):
            assert float(loss(y_true, embeddings)) == pytest.approx(
                expected, rel=1e-4
            )


@pytest.mark.parametrize("mining", MININGS)
def test_triplet_gradient_equals_finite_differences(mining, float64):
    labels, embeddings = labeled_embeddings(batch=8, classes=3)
    embeddings = embeddings.astype("float64")
    loss = keras_meta.losses.TripletLoss(margin=0.7, mining=mining)
    found = gradient(loss, labels, embeddings)
    assert np.any(found)
    for place in np.ndindex(*embeddings.shape):
        moved = [embeddings.copy(), embeddings.copy()]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        up, down = (float(loss(labels, each)) for each in moved)
        assert found[place] == pytest.approx((up - down) / 2e-6, abs=1e-6)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize(
    "distance", ["euclidean", "squared_euclidean", "cosine"]
)
def test_gradient_is_finite_where_embeddings_coincide(mining, distance):
    labels, embeddings = labeled_embeddings()
    embeddings[:6] = embeddings[0]
    embeddings[6:9] = 0.0
    loss = keras_meta.losses.TripletLoss(mining=mining, distance=distance)
    for same in (embeddings, np.ones_like(embeddings)):
        assert np.isfinite(float(loss(labels, same)))
        assert np.all(np.isfinite(gradient(loss, labels, same)))


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5, 5], [0]])
def test_batch_without_a_triplet_gives_zero(mining, labels):
    embeddings = np.random.default_rng(0).normal(size=(len(labels), 3))
    embeddings = embeddings.astype("float32")
    loss = keras_meta.losses.TripletLoss(mining=mining)
    assert float(loss(labels, embeddings)) == 0.0
    assert not np.any(gradient(loss, np.array(labels), embeddings))


@pytest.mark.parametrize("mining", MININGS)
def test_reductions_and_sample_weight_are_those_of_keras(mining):
    labels, embeddings = labeled_embeddings()
    values = keras_meta.losses.TripletLoss(mining=mining, reduction=None)(
        labels, embeddings
    ).numpy()
    assert values.shape == (12,) and len(set(values)) > 3
    total = keras_meta.losses.TripletLoss(mining=mining, reduction="sum")
    mean = keras_meta.losses.TripletLoss(mining=mining)
    assert float(total(labels, embeddings)) == pytest.approx(values.sum(), 1e-5)
    weight = np.random.default_rng(1).uniform(size=12)
    for sample_weight in (weight, weight[:, None]):
        assert float(
            mean(labels, embeddings, sample_weight=sample_weight)
        ) == pytest.approx(np.mean(values * weight), rel=1e-5)


@pytest.mark.parametrize(
    "mining, expected",
    [
        # The anchor 0 at 0: its positive at 10 is behind all negatives, of
        # which 4 is the farthest; that at 3 has the negative at 4 behind it.
        ("semi_hard", [(10 - 4 + 1) + (3 - 4 + 1), None, None, None, None]),
        ("hard", [10 - 1 + 1, 7 - 1 + 1, 10 - 6 + 1, 3 - 1 + 1, 3 - 1 + 1]),
    ],
)
def test_triplets_of_points_on_a_line(mining, expected):
    embeddings = np.array([[0.0], [3.0], [10.0], [1.0], [4.0]], "float32")
    loss = keras_meta.losses.TripletLoss(mining=mining, reduction="none")
    values = loss([0, 0, 0, 1, 1], embeddings).numpy()
    triplets_used = 8 if mining == "semi_hard" else 5
    for value, known in zip(values * triplets_used / 5, expected):
        assert known is None or value == pytest.approx(known, abs=1e-4)


def test_half_precision_is_computed_in_single():
    labels, embeddings = labeled_embeddings()
    half = (embeddings * 100).astype("float16")
    # Squares of 300 do not fit half precision.
    for mining in ("hard", "all"):
        loss = keras_meta.losses.TripletLoss(
            mining=mining, distance="squared_euclidean"
        )
        expected = float(loss(labels, half.astype("float32")))
        assert np.isfinite(expected) and expected > 1e4
        assert float(loss(labels, half)) == expected
        assert loss.call(labels, half).dtype == "float32"
    contrastive = keras_meta.losses.ContrastiveLoss()
    assert contrastive.call([1, 0], np.ones(2, "float16")).dtype == "float32"


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_any_keras_model_learns_from_labeled_batches(mining, policy):
    generator = np.random.default_rng(0)
    labels = np.arange(96) % 6
    # The class is in two numbers of ten, and the others are far larger.
    x = generator.normal(size=(96, 10)).astype("float32")
    x[:, :2] = generator.normal(size=(6, 2))[labels] * 0.5
    network = keras.Sequential(
        [keras.Input((10,)), keras.layers.Dense(4, dtype=policy)]
    )
    network.compile(
        keras.optimizers.Adam(0.02),
        loss=keras_meta.losses.TripletLoss(mining=mining, margin=0.5),
    )

    def nearest_is_of_the_class():
        embeddings = network.predict(x, verbose=0).astype("float32")
        distance = np.linalg.norm(embeddings[:, None] - embeddings, axis=-1)
        np.fill_diagonal(distance, np.inf)
        return np.mean(labels[distance.argmin(axis=1)] == labels)

    before = nearest_is_of_the_class()
    network.fit(x, labels, batch_size=32, epochs=25, verbose=0)
    assert nearest_is_of_the_class() > max(0.8, before + 0.1)


def test_compiled_models_with_them_are_saved(tmp_path):
    network = keras_meta.backbones.mlp((3,), (), outputs=2)
    for loss in (
        keras_meta.losses.TripletLoss(
            margin=0.3, mining="hard", distance="cosine", reduction="sum"
        ),
        keras_meta.losses.ContrastiveLoss(margin=0.4, name="mine"),
    ):
        network.compile("sgd", loss=loss)
        network.save(tmp_path / "network.keras")
        loaded = keras.saving.load_model(tmp_path / "network.keras").loss
        assert type(loaded) is type(loss)
        assert loaded.get_config() == loss.get_config()


def test_refuses_bad_arguments():
    for loss in (
        keras_meta.losses.ContrastiveLoss,
        keras_meta.losses.TripletLoss,
    ):
        for margin in (0, -1.0, float("nan"), "1"):
            with pytest.raises(ValueError, match="`margin` must.*Received"):
                loss(margin=margin)
    with pytest.raises(ValueError, match="`mining` must be one of.*'easy'"):
        keras_meta.losses.TripletLoss(mining="easy")
    with pytest.raises(ValueError, match="`distance` must.*'manhattan'"):
        keras_meta.losses.TripletLoss(distance="manhattan")


def test_refuses_a_distance_with_weights():
    # It would never be trained, nor saved with the model.
    learned = keras_meta.distances.LearnedDistance(3)
    with pytest.raises(ValueError, match="no weights.*Received: distance=<Le"):
        keras_meta.losses.TripletLoss(distance=learned)

    class MadeLater(keras.layers.Layer):
        weighted = True

        def build(self, queries_shape, references_shape):
            if self.weighted:
                self.add_weight(shape=(), name="scale")

        def call(self, queries, references):
            return keras_meta.distances.euclidean(queries, references)

    layer = MadeLater()
    loss = keras_meta.losses.TripletLoss(distance=layer)
    with pytest.raises(ValueError, match="no weights.*Received: distance=<Ma"):
        loss(*labeled_embeddings())
    MadeLater.weighted = False
    without = keras_meta.losses.TripletLoss(distance=MadeLater())
    same = keras_meta.losses.TripletLoss(distance="euclidean")
    assert float(without(*labeled_embeddings())) == float(
        same(*labeled_embeddings())
    )


def test_refuses_what_does_not_fit():
    contrastive = keras_meta.losses.ContrastiveLoss()
    with pytest.raises(ValueError, match=r"distances.*\[batch\].*\(4, 3\)"):
        contrastive(np.ones(4), np.ones((4, 3)))
    with pytest.raises(ValueError, match="1 labels for 4 predictions"):
        contrastive(np.ones(1), np.ones(4))
    triplet = keras_meta.losses.TripletLoss()
    with pytest.raises(ValueError, match=r"\[batch, size\].*Received.*\(4,\)"):
        triplet(np.ones(4), np.ones(4))
    with pytest.raises(ValueError, match=r"labels.*Received.*\(4, 2\)"):
        triplet(np.ones((4, 2)), np.ones((4, 3)))
    with pytest.raises(ValueError, match="1 labels for 4 predictions"):
        triplet(np.ones(1), np.ones((4, 3)))


def gaussian_answers(shape=(6, 2), seed=0):
    generator = np.random.default_rng(seed)
    y_true = generator.normal(size=shape).astype("float32")
    mean = generator.normal(size=shape)
    deviation = generator.uniform(0.2, 3.0, size=shape)
    y_pred = np.concatenate([mean, deviation], axis=-1).astype("float32")
    return y_true, y_pred


@pytest.mark.parametrize("shape", [(6, 1), (6, 2), (3, 4, 2)])
def test_gaussian_likelihood_equals_the_density(shape):
    y_true, y_pred = gaussian_answers(shape)
    loss = keras_meta.losses.GaussianLikelihood()
    values = loss.call(y_true, y_pred)
    assert values.shape == shape[:-1]
    size = shape[-1]
    expected = np.zeros(shape[:-1])
    for place in np.ndindex(*shape[:-1]):
        for target, mean, deviation in zip(
            y_true[place], y_pred[place][:size], y_pred[place][size:]
        ):
            density = statistics.NormalDist(mean, deviation).pdf(target)
            expected[place] -= np.log(density)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)
    assert float(loss(y_true, y_pred)) == pytest.approx(expected.mean(), 1e-4)


def test_gaussian_likelihood_is_least_at_the_mean_and_the_spread():
    y_true = np.random.default_rng(0).normal(3.0, 2.0, size=(500, 1))
    y_true = y_true.astype("float32")
    loss = keras_meta.losses.GaussianLikelihood()
    best = np.tile([[np.mean(y_true), np.std(y_true)]], (500, 1))
    slope = gradient(loss, y_true, best.astype("float32")).sum(axis=0)
    np.testing.assert_allclose(slope, 0.0, atol=1e-4)
    for change in ([0.1, 0.0], [-0.1, 0.0], [0.0, 0.1], [0.0, -0.1]):
        worse = (best + change).astype("float32")
        assert float(loss(y_true, worse)) > float(loss(y_true, best))


def test_gaussian_likelihood_takes_weights_and_reductions_of_keras():
    y_true, y_pred = gaussian_answers()
    loss = keras_meta.losses.GaussianLikelihood
    values = loss(reduction="none")(y_true, y_pred).numpy()
    assert len(set(values)) == 6
    assert float(loss(reduction="sum")(y_true, y_pred)) == pytest.approx(
        values.sum(), 1e-4
    )
    weight = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 0.5])
    assert float(loss()(y_true, y_pred, sample_weight=weight)) == pytest.approx(
        np.mean(values * weight), rel=1e-4
    )


def test_gaussian_likelihood_is_saved_with_a_model(tmp_path):
    network = keras_meta.backbones.mlp((3,), (), outputs=2)
    loss = keras_meta.losses.GaussianLikelihood(reduction="sum", name="mine")
    network.compile("sgd", loss=loss)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras").loss
    assert type(loaded) is type(loss)
    assert loaded.get_config() == loss.get_config()
