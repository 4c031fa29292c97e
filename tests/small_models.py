"""One small model of every algorithm, for 3-way episodes of 8 features."""

import keras

import keras_meta


def embedding():
    return keras_meta.backbones.mlp((8,), (6,), outputs=None)


def classifier():
    return keras_meta.backbones.mlp((8,), (6,), outputs=3)


def learned_rule():
    return keras_meta.update_rules.CoordinatewiseLSTM(units=(4,))


SETTINGS = {
    "AttentiveNeuralProcess": lambda: dict(
        network=embedding(),
        outputs=3,
        hidden_units=(6,),
        code_size=4,
        heads=2,
        latent_size=2,
        samples=2,
    ),
    "ConditionalNeuralProcess": lambda: dict(
        network=embedding(), outputs=3, hidden_units=(6,), code_size=4
    ),
    "FineTuning": lambda: dict(
        network=embedding(), ways=3, pretraining_outputs=20, inner_steps=5
    ),
    "FrozenRepresentation": lambda: dict(
        network=embedding(),
        classifier="logistic",
        ways=3,
        pretraining_outputs=20,
        iterations=10,
    ),
    "HyperNetwork": lambda: dict(
        network=classifier(), hidden_units=(6,), code_size=4
    ),
    "ImplicitMAML": lambda: dict(
        network=classifier(), inner_steps=3, inner_learning_rate=0.1
    ),
    "InContextLearner": lambda: dict(
        network=embedding(), outputs=3, width=8, blocks=1, heads=2
    ),
    "LearnedOptimizer": lambda: dict(
        network=classifier(),
        update_rule=learned_rule(),
        inner_steps=3,
        truncation=2,
    ),
    "MAML": lambda: dict(
        network=classifier(),
        inner_steps=2,
        update_rule=keras_meta.update_rules.MetaSGD(0.1),
    ),
    "MatchingNetwork": lambda: dict(
        network=embedding(), context_steps=1, unknown=True
    ),
    "MemoryAugmentedNetwork": lambda: dict(
        network=embedding(), outputs=3, units=6, slots=4, slot_size=4, reads=2
    ),
    "ProtoMAML": lambda: dict(
        network=embedding(), ways=3, inner_learning_rate=0.1
    ),
    "PrototypicalNetwork": lambda: dict(network=embedding()),
    "RelationNetwork": lambda: dict(network=embedding()),
    "Reptile": lambda: dict(
        network=classifier(), inner_steps=3, batch_size=4, evaluation_steps=4
    ),
    "RidgeHead": lambda: dict(network=embedding()),
    "SNAIL": lambda: dict(
        network=embedding(),
        outputs=3,
        max_supports=9,
        filters=4,
        attention_size=4,
        stages=1,
    ),
    "SiameseNetwork": lambda: dict(network=embedding(), head="verification"),
}

# Those that `fit()` trains on ordinary examples.
PRETRAINED = ("FineTuning", "FrozenRepresentation")


def make_model(algorithm):
    """Returns a compiled model of an algorithm, by its public name."""
    model = getattr(keras_meta, algorithm)(**SETTINGS[algorithm]())
    if hasattr(model, "task_mapping"):
        # One by one, a graph is traced in half the time.
        model.task_mapping = "sequential"
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model
