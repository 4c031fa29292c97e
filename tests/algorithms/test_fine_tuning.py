import keras

import keras_meta
from tests.algorithms import contract


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.FineTuning(
        network, 3, 20, inner_steps=20, inner_learning_rate=0.1, **settings
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class TestFineTuning(contract.AlgorithmContract):
    def make_model(self):
        return make_model()

    def training_data(self):
        return keras_meta.episodes.examples(*contract.blobs()).repeat()
