import keras

import keras_meta
from tests.algorithms import contract


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.AttentiveNeuralProcess(
        network, 3, hidden_units=(32,), code_size=32, heads=4, **settings
    )
    model.compile(
        keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class TestAttentiveNeuralProcess(contract.AlgorithmContract):
    steps_per_epoch = 250

    def make_model(self):
        return make_model()
