"""
Title: What more workers bring
Description: Bytes and messages of a step against its compute: the efficiency
    that follows for 1 to 1,024 workers, and how far the reckoning is from a
    few processes on this machine.
Accelerator: None

    python benchmarks/scaling.py [--workers 1 2 4] [--output FOLDER]

A step costs its compute, `c` seconds, and all-reduces in a ring. There each of
`N` workers sends `2 (N - 1)` messages for each of `k` collectives, one after
the other, which takes `2 (N - 1) k latency`, and `2 (N - 1) / N` times the
bytes of the gradients. The efficiency is `c` by the sum. Each worker has the
same number of tasks, however many workers there are.
"""

import argparse
import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

WORKERS = [4**n for n in range(6)]
# Gigabits a second, and seconds from one machine to the next: assumed.
NETWORKS = {"10 Gbit/s": (10, 50e-6), "100 Gbit/s": (100, 20e-6)}
# The gradients, the sum and the count of the logs; MAML and Reptile also ask
# whether any replica has diverged.
COLLECTIVES = {"MAML": 4, "Reptile": 4, "PrototypicalNetwork": 3}
# How much faster than this machine a device may be: the compute shrinks, and
# the bytes do not.
SPEEDS = (1, 100)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--workers", default=[1, 2, 4], type=int, nargs="+")
    parser.add_argument("--models", default=list(COLLECTIVES), nargs="+")
    parser.add_argument("--steps", default=30, type=int)
    parser.add_argument("--tasks", default=4, type=int)
    parser.add_argument("--filters", default=32, type=int)
    parser.add_argument("--output", default="benchmark_output")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def seconds_on(network, workers, megabytes, collectives):
    """Returns the seconds of a step's all-reduces in a ring."""
    gigabits, latency = network
    messages = 2 * (workers - 1) * collectives * latency
    share = 2 * (workers - 1) / workers
    return messages + share * megabytes * 8e-3 / gigabits


def make(name, filters):
    import keras

    import keras_meta

    conv4 = keras_meta.backbones.conv4
    if name == "PrototypicalNetwork":
        model = keras_meta.PrototypicalNetwork(conv4(filters=filters))
    else:
        network = conv4(outputs=5, filters=filters, downsampling="strides")
        model = getattr(keras_meta, name)(network)
    model.compile(
        "sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def measure(arguments):
    """Measures as one of the workers, all of which run this at once."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_meta

    # A worker is a core: so the cores that there are can be reckoned with.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28, 1))

    def episodes(context):
        kept = keras_meta.episodes.from_arrays(
            images.astype("uint8"),
            np.repeat(np.arange(10), 20),
            ways=5,
            shots=1,
            queries=5,
            meta_batch_size=arguments.tasks,
        ).take(1)
        return kept.cache().repeat()

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.wall, self.cpu = [], []

        def on_train_batch_end(self, batch, logs=None):
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())

    rows = []
    for name in arguments.models:
        with strategy.scope():
            model = make(name, arguments.filters)
        clock = Clock()
        model.fit(
            strategy.distribute_datasets_from_function(episodes),
            # The first steps trace, and fill what is prefetched.
            steps_per_epoch=arguments.steps + 5,
            callbacks=[clock],
            verbose=0,
        )
        weights = sum(np.prod(v.shape) for v in model.trainable_variables)
        rows.append(
            {
                "model": name,
                "megabytes": float(4e-6 * weights),
                "seconds": statistics.median(np.diff(clock.wall)[4:].tolist()),
                "cpu_seconds": float(np.mean(np.diff(clock.cpu)[4:])),
            }
        )
    network = None
    if strategy.num_replicas_in_sync > 1:
        network = measure_network(strategy)
    return {"models": rows, "network": network}


def measure_network(strategy):
    """Returns gigabits a second, and seconds of a message, of this machine."""
    import tensorflow as tf

    def seconds(megabytes):
        tensor = tf.zeros([max(int(megabytes * 1e6) // 4, 1)])

        @tf.function
        def reduce():
            return strategy.run(
                lambda: tf.distribute.get_replica_context().all_reduce(
                    tf.distribute.ReduceOp.SUM, tensor
                )
            )

        times = []
        for _ in range(20):
            started = time.perf_counter()
            reduce()
            times.append(time.perf_counter() - started)
        return statistics.median(times[5:])

    workers = strategy.num_replicas_in_sync
    small, large = seconds(0), seconds(10)
    latency = small / (2 * (workers - 1))
    moved = 2 * (workers - 1) / workers * 10 * 8e-3
    return moved / max(large - small, 1e-9), latency


def run_workers(count):
    """Runs this script in as many processes, which find each other."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    processes = []
    for index in range(count):
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
        environment.pop("TF_CONFIG", None)
        if count > 1:
            environment["TF_CONFIG"] = json.dumps(
                {
                    "cluster": {"worker": hosts},
                    "task": {"type": "worker", "index": index},
                }
            )
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--one", *sys.argv[1:]],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("A worker failed; see what it wrote above.")
    # A step ends when the slowest has come to its end.
    results = [json.loads(text.splitlines()[-1]) for text in printed]
    slowest = results[0]
    for result in results[1:]:
        for row, other in zip(slowest["models"], result["models"]):
            row["seconds"] = max(row["seconds"], other["seconds"])
    return slowest


def available_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def compare(runs, cores):
    """Returns rows of what was reckoned for the processes, and measured."""
    # Of one core, and whatever else runs on it.
    alone = {row["model"]: row["cpu_seconds"] for row in runs[1]["models"]}
    rows = []
    for count, run in runs.items():
        for row in run["models"]:
            name = row["model"]
            # Processes beyond the cores wait for each other.
            reckoned = alone[name] * max(1, count / cores)
            if run["network"]:
                reckoned += seconds_on(
                    run["network"], count, row["megabytes"], COLLECTIVES[name]
                )
            rows.append({"workers": count, **row, "reckoned": reckoned})
    return rows


def predict(run):
    """Returns rows of the efficiency on each network, device and count."""
    rows = []
    for row in run["models"]:
        for speed in SPEEDS:
            for network, speeds in NETWORKS.items():
                compute = row["cpu_seconds"] / speed
                rows.append(
                    {
                        "model": row["model"],
                        "speed": speed,
                        "network": network,
                        "efficiency": {
                            count: compute
                            / (
                                compute
                                + seconds_on(
                                    speeds,
                                    count,
                                    row["megabytes"],
                                    COLLECTIVES[row["model"]],
                                )
                            )
                            for count in WORKERS
                        },
                    }
                )
    return rows


def tables(measured, predicted):
    lines = [
        "| model | workers | MB a step | CPU of a worker, ms | reckoned, ms | "
        "measured, ms | measured by reckoned |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured:
        reckoned, seconds = row["reckoned"] * 1e3, row["seconds"] * 1e3
        lines.append(
            f"| {row['model']} | {row['workers']} | {row['megabytes']:.2f} | "
            f"{row['cpu_seconds'] * 1e3:.0f} | {reckoned:.0f} | "
            f"{seconds:.0f} | {seconds / reckoned:.2f} |"
        )
    counts = " | ".join(f"{count:,}" for count in WORKERS)
    lines += [
        "",
        f"| model | device | network | {counts} |",
        "|---|---|---|" + "---|" * len(WORKERS),
    ]
    for row in predicted:
        device = f"{row['speed']} x this core"
        cells = " | ".join(f"{e:.0%}" for e in row["efficiency"].values())
        lines.append(
            f"| {row['model']} | {device} | {row['network']} | {cells} |"
        )
    return "\n".join(lines) + "\n"


def draw(predicted, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(SPEEDS), figsize=(9, 3.6), sharey=True, layout="constrained"
    )
    for speed, part in zip(SPEEDS, axes):
        for row in predicted:
            if row["speed"] == speed:
                part.plot(
                    list(row["efficiency"]),
                    list(row["efficiency"].values()),
                    "--" if row["network"] == "10 Gbit/s" else "-",
                    marker="o",
                    label=f"{row['model']}, {row['network']}",
                )
        part.set_xscale("log", base=4)
        part.set(title=f"{speed} x this core", xlabel="workers", ylim=(0, 1.05))
        part.grid(alpha=0.3)
    axes[0].set_ylabel("efficiency")
    axes[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=150)


def main():
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    counts = sorted({1, *arguments.workers})
    runs = {count: run_workers(count) for count in counts}
    cores = available_cores()
    measured, predicted = compare(runs, cores), predict(runs[1])
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    results = {
        "settings": {**vars(arguments), "cores": cores},
        "networks": {count: run["network"] for count, run in runs.items()},
        "measured": measured,
        "predicted": predicted,
    }
    (output / "scaling.json").write_text(json.dumps(results, indent=1))
    (output / "scaling.md").write_text(tables(measured, predicted))
    draw(predicted, output / "scaling.png")
    print(f"{cores} core(s)\n\n{tables(measured, predicted)}")
    for count, run in runs.items():
        if run["network"]:
            gigabits, latency = run["network"]
            print(
                f"{count} processes: {gigabits:.1f} Gbit/s, "
                f"{latency * 1e3:.2f} ms a message"
            )


if __name__ == "__main__":
    main()
