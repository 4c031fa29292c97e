import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_maml import outer_gradient
from tests.algorithms.test_maml import random_episodes
from tests.algorithms.test_maml import relative_difference
from tests.algorithms.test_unrolled_model import directional_gradient


def crossentropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def embedding(size=8, dtype=None):
    inputs = keras.Input((size,), dtype=dtype)
    x = keras.layers.Dense(16, activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(6)(x))


def compiled(network=None, ways=3, optimizer=None, **arguments):
    settings = dict(inner_steps=2, inner_learning_rate=0.1, sharpness=0.3)
    model = keras_meta.ProtoMAML(
        network or embedding(), ways, **settings | arguments
    )
    model.compile(
        optimizer or keras.optimizers.SGD(1.0),
        loss=crossentropy(),
        metrics=["accuracy"],
    )
    if "task_mapping" not in arguments:
        contract.untraced(model)
    return model


class TestProtoMAML(contract.AlgorithmContract):
    def make_model(self):
        return compiled(
            optimizer=keras.optimizers.Adam(0.01), task_mapping="auto"
        )


@keras.saving.register_keras_serializable(package="tests")
class SubclassedEmbedding(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(16, activation="tanh")

    def call(self, x):
        return self.hidden(x)


class TestProtoMAMLOfASubclassedNetwork(contract.VariantContract):
    # What differs is how the network is copied, and not a training step.
    test_ways_to_run_give_equal_steps = None

    def make_model(self):
        network = SubclassedEmbedding()
        network(np.zeros((1, 8), "float32"))
        return compiled(
            network, optimizer=keras.optimizers.Adam(0.01), sharpness=1.0
        )


def one_of_each(ways=4, tasks=3, seed=0, dtype="float32"):
    """Episodes of two shots of every way, in the order of the ways."""
    x, y = random_episodes(
        tasks, 2 * ways, 5, (8,), ways=ways, seed=seed, dtype=dtype
    )
    x["support_y"] = np.tile(np.arange(ways), (tasks, 2))
    return x, y


def test_starts_as_a_prototypical_network():
    x, _ = one_of_each()
    model = compiled(ways=4)
    prototypical = keras_meta.PrototypicalNetwork(
        model.embedding, sharpness=0.3
    )
    np.testing.assert_allclose(
        keras.ops.softmax(model.predictions_per_step(x)[0]),
        keras.ops.softmax(prototypical(x)),
        rtol=1e-4,
        atol=1e-6,
    )


def test_steps_are_those_of_maml_from_that_head():
    x, _ = one_of_each(tasks=1)
    model = compiled(ways=4)
    embedded = model.embedding(x["support_x"][0]).numpy()
    means = (embedded[:4] + embedded[4:]) / 2
    head = model.network.layers[-1]
    head.kernel.assign(2 * 0.3 * means.T)
    head.bias.assign(-0.3 * np.sum(means**2, axis=1))
    maml = keras_meta.MAML(
        model.network,
        inner_steps=2,
        inner_learning_rate=0.1,
        inner_loss=crossentropy(),
    )
    for ours, theirs in zip(
        model.predictions_per_step(x), maml.predictions_per_step(x)
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gradient_passes_through_the_prototypes(float64):
    x, y = one_of_each(dtype="float64")
    model = compiled(embedding(dtype="float64"), ways=5)
    actual, measured = directional_gradient(model, x, y)
    assert relative_difference(actual, measured) < 1e-8
    # What the head was before is never used.
    for gradient in outer_gradient(model, x, y)[-2:]:
        assert np.all(gradient == 0)


def test_ways_may_differ_and_those_that_lack_never_win():
    model = compiled(ways=6)
    few, few_y = one_of_each(ways=3)
    narrow = keras_meta.ProtoMAML(
        model.embedding,
        3,
        inner_steps=2,
        inner_learning_rate=0.1,
        sharpness=0.3,
        inner_loss=crossentropy(),
    )
    answers = model(few)
    assert answers.shape == (3, 5, 6)
    np.testing.assert_allclose(answers[..., :3], narrow(few), atol=1e-5)
    assert np.all(answers[..., 3:] < -1e8)
    model.train_on_batch(few, few_y)
    model.train_on_batch(*one_of_each(ways=6))
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


def test_episodes_of_different_ways_and_shots_share_a_graph():
    x, y = one_of_each(ways=3, tasks=2)
    model = compiled(ways=3)
    weight = np.ones((2, 6), "float32")
    # The second task has two ways, and one shot of the second.
    weight[1, [2, 4, 5]] = 0
    y[1] %= 2
    x["support_x"][1, [2, 4, 5]] = 99.0
    padded = model({**x, "support_weight": weight})
    kept = weight[1] > 0
    alone = model(
        {
            "support_x": x["support_x"][1:, kept],
            "support_y": x["support_y"][1:, kept],
            "query_x": x["query_x"][1:],
        }
    )
    np.testing.assert_allclose(padded[1], alone[0], rtol=1e-4, atol=1e-4)
    model.fit(
        {**x, "support_weight": weight}, y, batch_size=2, epochs=2, verbose=0
    )


def test_normalizes_and_rounds_as_other_models_do():
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(16, dtype="mixed_float16")(inputs)
    hidden = keras.layers.BatchNormalization(dtype="mixed_float16")(hidden)
    network = keras.Model(inputs, hidden)
    model = compiled(network, ways=5, normalization_statistics="support")
    x, y = one_of_each()
    logs = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(logs["loss"])
    alone = model({**x, "query_x": x["query_x"][:, :1]})
    np.testing.assert_allclose(
        alone[:, 0, :4], model(x)[:, 0, :4], rtol=0.02, atol=0.02
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ways": 0}, "`ways` must be"),
        ({"sharpness": -1.0}, "`sharpness` must be"),
        (
            {"network": keras_meta.backbones.conv4(filters=2, flatten=False)},
            "one flat embedding.*Received",
        ),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        compiled(**arguments)


def test_refuses_queries_of_a_class_without_support():
    x, y = one_of_each(ways=3)
    model = compiled(ways=5)
    y[0] = 4
    with pytest.raises(ValueError, match=r"task 0.*lacks the classes \[4\]"):
        model.train_on_batch(x, y)


def test_refuses_losses_of_probabilities():
    model = keras_meta.ProtoMAML(embedding(), 3)
    with pytest.raises(ValueError, match="must take logits.*Received"):
        model.compile("adam", loss="sparse_categorical_crossentropy")


def test_a_fixed_head_names_the_algorithm_whose_ways_are_free():
    maml = keras_meta.MAML(
        keras_meta.backbones.mlp((8,), (4,), outputs=3),
        inner_loss=crossentropy(),
    )
    x, _ = one_of_each(ways=4)
    with pytest.raises(ValueError, match="one output per way.*ProtoMAML"):
        maml(x)
