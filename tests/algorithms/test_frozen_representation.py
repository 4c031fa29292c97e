import keras

import keras_meta
from tests.algorithms import contract


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.FrozenRepresentation(
        network, pretraining_outputs=20, **{"ways": 3} | settings
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class TestFrozenRepresentation(contract.AlgorithmContract):
    def make_model(self):
        return make_model()

    def training_data(self):
        return keras_meta.episodes.examples(*contract.blobs()).repeat()
