"""Training on two devices; in a process of its own, which has two."""

import subprocess
import sys

SCRIPT = """
import contextlib

import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras_meta
from tests.algorithms.contract import blob_episodes

MAKE = {
    "MAML": lambda: keras_meta.MAML(
        keras_meta.backbones.mlp((8,), (16,), outputs=3),
        inner_learning_rate=0.1,
        task_mapping="sequential",
    ),
    "PrototypicalNetwork": lambda: keras_meta.PrototypicalNetwork(
        keras_meta.backbones.mlp((8,), (16,), outputs=4)
    ),
    "Reptile": lambda: keras_meta.Reptile(
        keras_meta.backbones.mlp((8,), (16,), outputs=3),
        inner_learning_rate=0.05,
        task_mapping="sequential",
    ),
}
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name, make in MAKE.items():
    results = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        keras.utils.set_random_seed(0)
        with scope:
            model = make()
            model.compile(
                keras.optimizers.SGD(0.1),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
                # One device need not be traced to know what comes of it.
                run_eagerly=not tf.distribute.has_strategy(),
            )
        model.fit(blob_episodes(), steps_per_epoch=3, verbose=0)
        test = blob_episodes(episodes=7)
        logs = model.evaluate(test, verbose=0, return_dict=True)
        results.append((model.get_weights(), logs))
    (weights, logs), (other_weights, other_logs) = results
    for one, other in zip(weights, other_weights):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    for metric in ("loss", "accuracy"):
        np.testing.assert_allclose(logs[metric], other_logs[metric], rtol=1e-4)
    print(name, "is the same")
"""


def test_two_devices_train_as_one_does():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("MAML", "PrototypicalNetwork", "Reptile"):
        assert f"{name} is the same" in done.stdout
