import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms import contract


def identity_network(size=4):
    inputs = keras.Input((size,))
    return keras.Model(inputs, keras.layers.Identity()(inputs))


def random_episode(tasks=2, ways=3, shots=(2, 1, 4), queries=5, size=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(ways), shots)
    return {
        "support_x": generator.normal(size=(tasks, len(labels), size)).astype(
            "float32"
        ),
        "support_y": np.tile(labels, (tasks, 1)),
        "query_x": generator.normal(size=(tasks, queries, size)).astype(
            "float32"
        ),
    }


def by_hand(x, distance):
    """The paper's formula with loops."""
    logits = []
    for support, labels, queries in zip(
        x["support_x"], x["support_y"], x["query_x"]
    ):
        prototypes = [
            support[labels == k].mean(axis=0) for k in range(labels.max() + 1)
        ]
        logits.append([[-distance(q, c) for c in prototypes] for q in queries])
    return np.array(logits)


def cosine(a, b):
    return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize(
    "name, distance",
    [
        ("squared_euclidean", lambda a, b: np.sum((a - b) ** 2)),
        ("euclidean", lambda a, b: np.linalg.norm(a - b)),
        ("cosine", cosine),
    ],
)
def test_logits_equal_the_formula_with_unequal_shots(name, distance):
    x = random_episode()
    model = keras_meta.PrototypicalNetwork(identity_network(), distance=name)
    np.testing.assert_allclose(
        model(x), by_hand(x, distance), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize(
    "distance", ["squared_euclidean", "cosine", "euclidean"]
)
def test_sharpness_is_a_factor_also_of_the_adapted_model(distance, unknown):
    x = random_episode(tasks=1)
    settings = dict(distance=distance, unknown=unknown)
    plain = keras_meta.PrototypicalNetwork(identity_network(), **settings)
    sharp = keras_meta.PrototypicalNetwork(
        identity_network(), sharpness=0.3, **settings
    )
    if unknown:
        plain.unknown_threshold.assign(-2.0)
        sharp.unknown_threshold.assign(-0.6)
    np.testing.assert_allclose(sharp(x), 0.3 * plain(x), rtol=1e-5)
    adapted = sharp.adapt(x["support_x"][0], x["support_y"][0])
    np.testing.assert_allclose(
        keras.ops.softmax(adapted(x["query_x"][0])),
        keras.ops.softmax(sharp(x)[0]),
        rtol=1e-4,
    )
    copy = keras_meta.PrototypicalNetwork.from_config(sharp.get_config())
    assert copy.sharpness == 0.3
    with pytest.raises(ValueError, match="`sharpness`.*above 0.*Received"):
        keras_meta.PrototypicalNetwork(identity_network(), sharpness=0)


def test_permuting_the_ways_permutes_the_logits():
    x = random_episode()
    model = keras_meta.PrototypicalNetwork(identity_network())
    order = np.array([2, 0, 1])
    renamed = {**x, "support_y": order[x["support_y"]]}
    np.testing.assert_allclose(
        model(x), np.asarray(model(renamed))[..., order], atol=1e-5
    )


def test_padded_support_counts_for_nothing():
    x = random_episode()
    noise = random_episode(seed=1)
    padded = {
        "support_x": np.concatenate([x["support_x"], noise["support_x"]], 1),
        "support_y": np.concatenate([x["support_y"], noise["support_y"]], 1),
        "support_weight": np.repeat([[1.0, 0.0]], 7, axis=1).repeat(2, axis=0),
        "query_x": x["query_x"],
    }
    padded["support_weight"] = np.array([[1.0] * 7 + [0.0] * 7] * 2)
    model = keras_meta.PrototypicalNetwork(identity_network())
    np.testing.assert_allclose(model(x), model(padded), atol=1e-5)


def test_tasks_of_fewer_ways_never_answer_with_an_absent_one():
    x = random_episode()
    x["support_y"][1] = np.minimum(x["support_y"][1], 1)
    model = keras_meta.PrototypicalNetwork(identity_network())
    probabilities = keras.ops.softmax(model(x))
    assert np.all(probabilities[1, :, 2] == 0.0)
    assert np.all(np.isfinite(model(x)))
    assert np.all(probabilities[0, :, 2] > 0.0)


def test_gradient_is_finite_where_embeddings_coincide():
    for distance in ("squared_euclidean", "euclidean", "cosine"):
        x = random_episode(shots=(1, 1, 1), queries=3)
        x["query_x"] = x["support_x"].copy()
        x["support_x"][:, 0] = x["query_x"][:, 0] = 0.0
        network = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(4, use_bias=False)]
        )
        model = keras_meta.PrototypicalNetwork(network, distance=distance)
        model.compile(
            "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        model.fit(x, x["support_y"], verbose=0)
        assert np.all(np.isfinite(network.get_weights()[0])), distance


def test_trains_with_more_ways_than_it_is_evaluated_with():
    model = TestPrototypicalNetwork().make_model(ways=None)
    model.fit(
        contract.blob_episodes(ways=8),
        validation_data=contract.blob_episodes(episodes=8, ways=3, seed=1),
        steps_per_epoch=2,
        verbose=0,
    )


def test_adapted_model_loads_in_a_process_without_this_package(tmp_path):
    network = keras_meta.backbones.conv4((8, 8, 1), filters=4)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(6, 8, 8, 1)).astype("float32")
    answers = {}
    for distance in ("squared_euclidean", "cosine"):
        for unknown in (False, True):
            model = keras_meta.PrototypicalNetwork(
                network, distance=distance, unknown=unknown
            )
            adapted = model.adapt(x, [0, 0, 1, 1, 2, 2])
            assert isinstance(adapted.layers[-1], keras.layers.Dense)
            name = f"{distance}_{unknown}"
            adapted.save(tmp_path / f"{name}.keras")
            answers[name] = adapted.predict(x, verbose=0)
            assert answers[name].shape == (6, 3 + unknown)
    np.savez(tmp_path / "data.npz", x=x, **answers)
    program = (
        "import sys, keras, numpy as np\n"
        "data = dict(np.load(sys.argv[1] + '/data.npz'))\n"
        "x = data.pop('x')\n"
        "for name, expected in data.items():\n"
        "    path = sys.argv[1] + '/' + name + '.keras'\n"
        "    model = keras.saving.load_model(path)\n"
        "    answer = model.predict(x, verbose=0)\n"
        "    assert np.array_equal(answer, expected)\n"
        "assert 'keras_meta' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True)


def test_learned_distance_is_trained_and_saved(tmp_path):
    distance = keras_meta.distances.LearnedDistance(4)
    model = keras_meta.PrototypicalNetwork(
        identity_network(), distance=distance
    )
    plain = keras_meta.PrototypicalNetwork(identity_network())
    x = random_episode()
    np.testing.assert_allclose(model(x), plain(x), rtol=1e-4, atol=1e-5)
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    before = distance.get_weights()[0]
    model.fit(x, np.tile(np.arange(5) % 3, (2, 1)), verbose=0)
    assert np.all(distance.get_weights()[0] != before)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(x), loaded(x))


def test_refuses_bad_input():
    with pytest.raises(ValueError, match="`distance` must.*'manhattan'"):
        keras_meta.PrototypicalNetwork(identity_network(), distance="manhattan")
    with pytest.raises(ValueError, match="`ways` must be"):
        keras_meta.PrototypicalNetwork(identity_network(), ways=0)
    model = keras_meta.PrototypicalNetwork(identity_network())
    x = random_episode()
    with pytest.raises(ValueError, match=r"task 0.*lacks the classes \[1\]"):
        model.adapt(x["support_x"][0], np.array([0, 0, 2, 2, 2, 2, 2]))
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    with pytest.raises(ValueError, match=r"lacks the classes \[3\]"):
        model.fit(x, np.full((2, 5), 3), verbose=0)


class TestPrototypicalNetwork(contract.AlgorithmContract):
    def make_model(self, ways=3):
        model = keras_meta.PrototypicalNetwork(
            keras_meta.backbones.mlp((8,), (16,), outputs=8), ways=ways
        )
        model.compile(
            keras.optimizers.Adam(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model
