import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_prototypical_network import identity_network
from tests.algorithms.test_prototypical_network import random_episode

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def relation_of(layers, size=8):
    return keras.Sequential([keras.Input((size,)), *layers])


def map_network():
    network = keras_meta.backbones.conv4(
        (8, 8, 1), filters=4, flatten=False, halvings=2
    )
    for variable in network.weights:
        # So that batch normalization is not the identity.
        variable.assign(variable + 0.1)
    return network


def image_episode(seed=0):
    x = random_episode(size=64, seed=seed)
    for part in ("support_x", "query_x"):
        x[part] = x[part].reshape(*x[part].shape[:2], 8, 8, 1)
    return x


def by_hand(x, embed, relation):
    """One pair after another."""
    logits = []
    for support, labels, queries in zip(
        x["support_x"], x["support_y"], x["query_x"]
    ):
        support, queries = np.asarray(embed(support)), embed(queries)
        classes = [
            support[labels == k].mean(axis=0) for k in range(labels.max() + 1)
        ]
        logits.append(
            [
                [
                    float(relation(np.concatenate([q, c], axis=-1)[None]))
                    for c in classes
                ]
                for q in np.asarray(queries)
            ]
        )
    return np.array(logits)


def test_logits_equal_the_formula_with_unequal_shots():
    x = random_episode()
    model = keras_meta.RelationNetwork(identity_network())
    kernels = model.relation.get_weights()
    assert [kernel.shape for kernel in kernels] == [
        (8, 64),
        (64,),
        (64, 8),
        (8,),
        (8, 1),
        (1,),
    ]

    def relation(pair):
        hidden = np.maximum(pair @ kernels[0] + kernels[1], 0)
        hidden = np.maximum(hidden @ kernels[2] + kernels[3], 0)
        return (hidden @ kernels[4] + kernels[5]).item()

    expected = by_hand(x, lambda examples: examples, relation)
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def test_logits_of_feature_maps_equal_the_formula():
    x = image_episode()
    model = keras_meta.RelationNetwork(map_network())
    names = [type(layer).__name__ for layer in model.relation.layers]
    block = ["Conv2D", "BatchNormalization", "ReLU", "MaxPooling2D"]
    assert names == ["InputLayer", *block, *block, "Flatten", "Dense", "Dense"]
    # 2 by 2 of twice 4 channels; then 1 by 1, and nothing to pool.
    assert model.relation.input_shape == (None, 2, 2, 8)
    assert model.relation.layers[-3].output.shape == (None, 64)
    for variable in model.relation.weights:
        variable.assign(variable + 0.1)
    expected = by_hand(
        x,
        lambda images: model.network(images, training=False),
        lambda pair: model.relation(pair, training=False).numpy().item(),
    )
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_default_relation_takes_maps_of_any_size(side):
    inputs = keras.Input((side, side + 1, 3))
    network = keras.Model(inputs, keras.layers.Identity()(inputs))
    x = random_episode(size=side * (side + 1) * 3)
    for part in ("support_x", "query_x"):
        x[part] = x[part].reshape(*x[part].shape[:2], side, side + 1, 3)
    logits = keras_meta.RelationNetwork(network)(x)
    assert logits.shape == (2, 5, 3)
    assert np.all(np.isfinite(logits))


def test_a_relation_of_ones_own_is_used_and_saved(tmp_path):
    relation = relation_of([keras.layers.Dense(1)])
    model = keras_meta.RelationNetwork(identity_network(), relation)
    assert model.relation is relation
    x = random_episode()
    kernel, bias = relation.get_weights()
    expected = by_hand(
        x,
        lambda examples: examples,
        lambda pair: (pair @ kernel + bias).item(),
    )
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.relation.layers) == 1
    np.testing.assert_array_equal(loaded(x), model(x))


def test_batch_normalization_learns_in_training_and_is_frozen_elsewhere():
    x = image_episode()
    y = np.tile(np.arange(5) % 3, (2, 1))
    model = keras_meta.RelationNetwork(map_network())
    model.compile("sgd", LOSS)
    normalization = model.relation.layers[2]
    before = normalization.moving_mean.numpy()
    alone = {**x, "query_x": x["query_x"][:, :1]}
    np.testing.assert_allclose(
        model(alone), model(x)[:, :1], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(normalization.moving_mean, before)
    weights = model.relation.trainable_weights[0].numpy()
    model.fit(x, y, verbose=0)
    assert np.all(normalization.moving_mean != before)
    assert np.any(model.relation.trainable_weights[0] != weights)


def test_permuting_the_ways_permutes_the_logits():
    x = random_episode()
    model = keras_meta.RelationNetwork(identity_network())
    order = np.array([2, 0, 1])
    renamed = {**x, "support_y": order[x["support_y"]]}
    np.testing.assert_allclose(
        model(x), np.asarray(model(renamed))[..., order], atol=1e-5
    )


def test_padded_support_and_absent_ways():
    x, noise = random_episode(), random_episode(seed=1)
    padded = {
        "support_x": np.concatenate([x["support_x"], noise["support_x"]], 1),
        "support_y": np.concatenate([x["support_y"], noise["support_y"]], 1),
        "support_weight": np.array([[1.0] * 7 + [0.0] * 7] * 2, "float32"),
        "query_x": x["query_x"],
    }
    model = keras_meta.RelationNetwork(identity_network())
    np.testing.assert_allclose(model(x), model(padded), atol=1e-5)
    # The padded examples are of a way that the task then lacks.
    padded["support_y"][:, 7:] = 3
    logits = model(padded)
    np.testing.assert_allclose(logits[..., :3], model(x), atol=1e-5)
    np.testing.assert_array_equal(logits[..., 3], -1e9)


def test_gradient_is_finite_where_features_coincide():
    x = random_episode(shots=(1, 1, 1), queries=3)
    x["query_x"] = x["support_x"].copy()
    x["support_x"][:, 0] = x["query_x"][:, 0] = 0.0
    x["support_y"][1] = [0, 1, 1]
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, use_bias=False)]
    )
    model = keras_meta.RelationNetwork(network)
    model.compile("sgd", LOSS)
    before = network.get_weights()[0]
    model.fit(x, x["support_y"], verbose=0)
    assert np.all(np.isfinite(network.get_weights()[0]))
    assert np.any(network.get_weights()[0] != before)


def test_adapted_model_of_images_knows_what_is_unknown(tmp_path):
    model = keras_meta.RelationNetwork(map_network(), unknown=True)
    images = np.random.default_rng(0).normal(size=(60, 8, 8, 1))
    episodes = keras_meta.episodes.from_arrays(
        images.astype("float32"),
        np.repeat(np.arange(6), 10),
        ways=3,
        shots=2,
        queries=2,
        meta_batch_size=2,
        episodes=4,
    )
    result = model.calibrate_unknown(episodes, false_accept_rate=0.5)
    np.testing.assert_allclose(
        model.unknown_threshold, result.threshold, rtol=1e-5
    )
    x, _ = next(iter(episodes))
    logits = model(x)
    assert set(np.ravel(np.argmax(logits, axis=-1))) & {3}
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    adapted.save(tmp_path / "adapted.keras")
    loaded = keras.saving.load_model(tmp_path / "adapted.keras")
    for either in (adapted, loaded):
        answer = either.predict(x["query_x"][0], verbose=0)
        np.testing.assert_allclose(answer, logits[0], rtol=1e-4, atol=1e-5)


def test_refuses_bad_input():
    network = identity_network()
    with pytest.raises(TypeError, match="`relation` must be.*Received: .*Dens"):
        keras_meta.RelationNetwork(network, keras.layers.Dense(1))
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"must be built.*Input\(\(8,\)\)"):
        keras_meta.RelationNetwork(network, unbuilt)
    for bad in ([keras.layers.Dense(2)], [keras.layers.Reshape((4, 2))]):
        with pytest.raises(ValueError, match=r"one logit.*Dense\(1\)"):
            keras_meta.RelationNetwork(network, relation_of(bad))
    narrow = relation_of([keras.layers.Dense(1)], size=4)
    with pytest.raises(ValueError, match=r"twice as many.*\(8,\).*Received"):
        keras_meta.RelationNetwork(network, narrow)
    with pytest.raises(ValueError, match="`ways` must be"):
        keras_meta.RelationNetwork(network, ways=0)
    with pytest.raises(ValueError, match="`unknown` must be"):
        keras_meta.RelationNetwork(network, unknown=2)
    model = keras_meta.RelationNetwork(network)
    x = random_episode()
    with pytest.raises(ValueError, match=r"task 0.*lacks the classes \[1\]"):
        model.adapt(x["support_x"][0], [0, 0, 2, 2, 2, 2, 2])
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"lacks the classes \[3\]"):
        model.fit(x, np.full((2, 5), 3), verbose=0)
    wide = {**x, "query_x": np.zeros((2, 5, 6), "float32")}
    with pytest.raises(ValueError, match=r"same shape.*\(4,\).*\(6,\)"):
        model.fit(wide, np.zeros((2, 5), "int32"), verbose=0)


class TestRelationNetwork(contract.AlgorithmContract):
    def make_model(self):
        model = keras_meta.RelationNetwork(
            keras_meta.backbones.mlp((8,), (16,), outputs=8), ways=3
        )
        model.compile(keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"])
        return model
