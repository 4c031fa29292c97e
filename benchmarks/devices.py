"""Measures files for devices: how large they are, and how fast.

    python -m benchmarks.devices

Five ways with five shots of 28 x 28 images in gray. Of algorithms by
comparison, and others that embed, the network is `conv4()` with 64 filters;
where the adaptation itself takes gradients on the device, which convolutions
do not have there, it is a network of two dense layers of 64 units. The times
are those of the interpreter on one core, the median of some calls.
"""

import os
import pathlib
import statistics
import tempfile
import time
import warnings

import keras
import numpy as np
import tensorflow as tf

import keras_meta

WAYS, SHOTS = 5, 5


def convolutional():
    return keras_meta.backbones.conv4((28, 28, 1))


def dense():
    return keras_meta.backbones.mlp((28, 28, 1), (64, 64), outputs=WAYS)


def dense_embedding():
    return keras_meta.backbones.mlp((28, 28, 1), (64, 64), outputs=None)


MODELS = {
    "AttentiveNeuralProcess": lambda: dict(
        network=convolutional(), outputs=WAYS
    ),
    "ConditionalNeuralProcess": lambda: dict(
        network=convolutional(), outputs=WAYS
    ),
    "FineTuning": lambda: dict(network=dense_embedding(), ways=WAYS),
    "FrozenRepresentation": lambda: dict(network=convolutional(), ways=WAYS),
    "HyperNetwork": lambda: dict(network=dense(), generates="head"),
    "ImplicitMAML": lambda: dict(network=dense()),
    "InContextLearner": lambda: dict(network=convolutional(), outputs=WAYS),
    "LearnedOptimizer": lambda: dict(
        network=dense(), inner_steps=10, truncation=10
    ),
    "MAML": lambda: dict(network=dense(), inner_steps=5),
    "MatchingNetwork": lambda: dict(network=convolutional(), ways=WAYS),
    "MemoryAugmentedNetwork": lambda: dict(
        network=convolutional(), outputs=WAYS
    ),
    "ProtoMAML": lambda: dict(
        network=dense_embedding(), ways=WAYS, inner_steps=5
    ),
    "PrototypicalNetwork": lambda: dict(network=convolutional(), ways=WAYS),
    "RelationNetwork": lambda: dict(
        network=keras_meta.backbones.conv4(
            (28, 28, 1), flatten=False, halvings=2
        ),
        ways=WAYS,
    ),
    "Reptile": lambda: dict(network=dense()),
    "RidgeHead": lambda: dict(network=convolutional(), ways=WAYS),
    "SNAIL": lambda: dict(
        network=convolutional(), outputs=WAYS, max_supports=WAYS * SHOTS
    ),
    "SiameseNetwork": lambda: dict(network=convolutional(), ways=WAYS),
}


def interpreter(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tf.lite.Interpreter(str(path), num_threads=1)


def milliseconds(function, calls=5):
    function()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(algorithm, folder):
    keras.utils.set_random_seed(0)
    model = getattr(keras_meta, algorithm)(**MODELS[algorithm]())
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    supports = WAYS * SHOTS
    generator = np.random.default_rng(0)
    shape = (1, supports, 28, 28, 1)
    support_x = generator.uniform(size=shape).astype("float32")
    support_y = np.arange(supports, dtype="int32")[None] % WAYS
    path = pathlib.Path(folder) / "model.tflite"
    cells = []
    try:
        keras_meta.export_litert(model, path, supports=supports)
        adapt = interpreter(path).get_signature_runner("adapt")
        state = adapt(support_x=support_x, support_y=support_y)["task_state"]
        time_to_adapt = milliseconds(
            lambda: adapt(support_x=support_x, support_y=support_y)
        )
        cells += [
            f"{os.path.getsize(path) / 1000:,.0f} kB",
            f"{4 * state.size / 1000:,.1f} kB",
            f"{time_to_adapt:.2f} ms",
        ]
    except ValueError:
        cells += ["none", "none", "none"]
    adapted = model.adapt(support_x[0], support_y[0])
    keras_meta.export_litert(adapted, path)
    predict = interpreter(path).get_signature_runner("predict")
    query = support_x[0, :1]
    time_to_predict = milliseconds(lambda: predict(query_x=query))
    cells += [
        f"{os.path.getsize(path) / 1000:,.0f} kB",
        f"{time_to_predict:.2f} ms",
    ]
    return cells


def main():
    print(
        "| algorithm | learner | task state | adapt | adapted model "
        "| one query |\n|---|---|---|---|---|---|"
    )
    for algorithm in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            cells = measure(algorithm, folder)
        print(f"| `{algorithm}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
