import keras
import numpy as np
import pytest

import keras_meta
from keras_meta import adapting_weights


def network():
    """Layers a, b (with batch normalization) and head, one model inside."""
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, name="b"),
            keras.layers.BatchNormalization(name="normalization"),
        ],
        name="inner",
    )
    inputs = keras.Input((3,))
    x = inner(keras.layers.Dense(4, name="a")(inputs))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def adapting_layers(adapts, model=None):
    model = model or network()
    mask = adapting_weights.mask(model, adapts)
    assert len(mask) == len(model.trainable_variables)
    return [
        variable.path.split("/")[-2]
        for variable, adapting in zip(model.trainable_variables, mask)
        if adapting
    ]


@pytest.mark.parametrize(
    ("adapts", "layers"),
    [
        ("all", ["a", "a", "b", "b", *["normalization"] * 2, "head", "head"]),
        ("head", ["head", "head"]),
        ("body", ["a", "a", "b", "b", "normalization", "normalization"]),
        (lambda layer: layer.name == "a", ["a", "a"]),
        (
            lambda layer: isinstance(layer, keras.layers.BatchNormalization),
            ["normalization"] * 2,
        ),
    ],
)
def test_layers_that_adapt(adapts, layers):
    assert adapting_layers(adapts) == layers


def test_other_layers_than_models_are_asked_as_a_whole():
    model = keras.Sequential(
        [keras.Input((5, 3)), keras.layers.LSTM(2), keras.layers.Dense(1)]
    )
    mask = adapting_weights.mask(
        model, lambda layer: isinstance(layer, keras.layers.LSTM)
    )
    assert mask == [True, True, True, False, False]


def test_frozen_layers_are_not_the_head():
    model = network()
    model.get_layer("head").trainable = False
    assert adapting_layers("head", model) == ["normalization"] * 2


def test_subclassed_network():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = keras.layers.Dense(4, name="body")
            self.head = keras.layers.Dense(2, name="head")
            self.scale = self.add_weight(shape=(), name="scale")

        def call(self, x):
            return self.head(self.body(x)) * self.scale

    model = Network()
    model(np.zeros((1, 3), "float32"))
    mask = adapting_weights.mask(model, lambda layer: layer.name == "head")
    chosen = [
        v.path.split("/")[-2:]
        for v, adapting in zip(model.trainable_variables, mask)
        if adapting
    ]
    assert chosen == [["head", "kernel"], ["head", "bias"]]
    own = adapting_weights.mask(model, lambda layer: layer is model)
    assert sum(own) == 1


def test_refuses_what_chooses_nothing():
    with pytest.raises(ValueError, match="at least one layer.*a, b.*head"):
        adapting_weights.mask(network(), lambda layer: False)
    one_layer = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="Received: adapts='body'"):
        adapting_weights.mask(one_layer, "body")


@pytest.mark.parametrize("adapts", ["heads", None, 3])
def test_refuses_an_unknown_choice(adapts):
    with pytest.raises(ValueError, match="must be one of 'all'.*Received"):
        keras_meta.MAML(network(), adapts=adapts)


def test_refuses_a_head_of_several_outputs():
    inputs = keras.Input((3,))
    model = keras.Model(
        inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(2)(inputs)]
    )
    with pytest.raises(ValueError, match="one output.*2 outputs.*function"):
        adapting_weights.mask(model, "head")
    assert adapting_weights.mask(model, "all") == [True] * 4
