import keras

import keras_meta
from tests.algorithms import contract


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.MemoryAugmentedNetwork(
        network, 3, units=32, slots=16, slot_size=8, reads=2, **settings
    )
    model.compile(
        keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class TestMemoryAugmentedNetwork(contract.AlgorithmContract):
    steps_per_epoch = 250
    support_order_matters = True

    def make_model(self):
        return make_model()
