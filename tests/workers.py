"""Workers of one training: processes that `tf.distribute` ties together.

As a script it is one worker. It trains, and writes what came of it:

    python -m tests.workers OUTPUT [DEVICES [EPISODES [STEPS [MODELS]]]]

STEPS are those of an execution, and the names in MODELS stand between slashes.
"""

import contextlib
import json
import os
import pathlib
import pickle
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import keras_meta
from tests.algorithms.contract import blob_episodes

ROOT = pathlib.Path(__file__).resolve().parent.parent


def start(count, command, **environment):
    """Starts the workers of one cluster.

    Args:
        count: Integer, how many.
        command: Function from the index of a worker to its arguments of
            Python.
        **environment: Strings, variables of the environment.

    Returns:
        A list of `subprocess.Popen`.
    """
    with contextlib.ExitStack() as stack:
        # All at once, or a port could be given out twice.
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    processes = []
    for index in range(count):
        config = {
            "cluster": {"worker": hosts},
            "task": {"type": "worker", "index": index},
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, command(index))],
                cwd=ROOT,
                env={
                    **os.environ,
                    "TF_CONFIG": json.dumps(config),
                    **environment,
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


def finish(processes, timeout=300):
    """Waits for processes; returns what each of them printed.

    Those that are not done in time are killed, which their return codes tell.
    """
    ends = time.monotonic() + timeout
    printed = []
    for each in processes:
        try:
            left = max(ends - time.monotonic(), 1)
            printed.append(each.communicate(timeout=left)[0])
        except subprocess.TimeoutExpired:
            each.kill()
            printed.append(each.communicate()[0])
    return printed


def results_of(count, folder, *arguments):
    """Trains with several workers; returns what came of it on each.

    Args:
        count: Integer, how many workers.
        folder: Path, for their results.
        *arguments: Further arguments of the script.
    """
    paths = [folder / f"worker_{index}" for index in range(count)]
    processes = start(
        count, lambda index: ["-m", __name__, paths[index], "", *arguments]
    )
    for process, printed in zip(processes, finish(processes)):
        assert process.returncode == 0, printed[-3000:]
    return [pickle.loads(path.read_bytes()) for path in paths]


def dropping_network():
    network = keras_meta.backbones.mlp((8,), (16,), outputs=3)
    inputs = keras.Input((8,))
    return keras.Model(inputs, network(keras.layers.Dropout(0.2)(inputs)))


def normalizing_network():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

MAKE = {
    "MAML": lambda: keras_meta.MAML(
        dropping_network(), inner_learning_rate=0.1, task_mapping="sequential"
    ),
    "MAML, normalized per step": lambda: keras_meta.MAML(
        normalizing_network(),
        inner_learning_rate=0.1,
        inner_steps=2,
        normalization_statistics="per_step",
        normalization_scales="per_step",
        task_mapping="sequential",
    ),
    "PrototypicalNetwork": lambda: keras_meta.PrototypicalNetwork(
        keras_meta.backbones.mlp((8,), (16,), outputs=4)
    ),
    "Reptile": lambda: keras_meta.Reptile(
        keras_meta.backbones.mlp((8,), (16,), outputs=3),
        inner_learning_rate=0.05,
        inner_steps=2,
        batch_size=4,
        task_mapping="sequential",
    ),
}


def train(name, scope, seed=0, episodes=7, steps_per_execution=1):
    """Trains a model; returns a dictionary of what came of it.

    Args:
        name: String, a key of `MAKE`.
        scope: The scope of a strategy, or a context that does nothing.
        seed: Integer.
        episodes: Integer, on how many it is evaluated, too. With 0, which
            saves as long as it takes to trace again, on none.
        steps_per_execution: Integer, of `compile()`.
    """
    keras.utils.set_random_seed(seed)
    with scope:
        model = MAKE[name]()
        model.compile(
            keras.optimizers.SGD(0.1),
            loss=LOSS,
            metrics=["accuracy"],
            # One device need not be traced to know what comes of it.
            run_eagerly=not tf.distribute.has_strategy(),
            steps_per_execution=steps_per_execution,
        )
    # Of the last meta-batch, which is not full, shares may be unequal.
    test = blob_episodes(episodes=episodes, seed=1) if episodes else None
    history = model.fit(
        blob_episodes(),
        steps_per_epoch=2,
        epochs=2,
        validation_data=test,
        verbose=0,
    ).history
    # Each replica logs its first task before adaptation, where tasks run one
    # by one.
    logs = {
        name: values
        for name, values in history.items()
        if name in ("loss", "accuracy") or name.startswith("val_")
    }
    results = {"weights": model.get_weights(), "logs": logs}
    if episodes:
        results["evaluation"] = model.evaluate(
            test, verbose=0, return_dict=True
        )
        x, _ = next(iter(test))
        results["predictions"] = model.predict(x, verbose=0)
    return results


def mirrored(devices):
    """Returns a strategy of several devices, which must come first of all."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * devices
    )
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(devices)]
    )


def main(output, devices="", episodes="0", steps_per_execution="1", models=""):
    if devices:
        strategy = mirrored(int(devices))
        seed = 0
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        # The weights are to be those of the first worker.
        seed = strategy.cluster_resolver.task_id
    results = {
        name: train(
            name,
            strategy.scope(),
            seed,
            int(episodes),
            int(steps_per_execution),
        )
        for name in (models.split("/") if models else MAKE)
    }
    pathlib.Path(output).write_bytes(pickle.dumps(results))


def assert_close(one, other):
    """Compares nested structures of numbers to rounding."""
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        one,
        other,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
