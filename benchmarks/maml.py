"""
Title: Speed and memory of MAML
Description: Outer steps a second and peak memory of the two models of the
    quickstart, with XLA on and off and with each way of running tasks.
Accelerator: None

    python benchmarks/maml.py [--rounds 3] [--seconds 5] [--output FOLDER]

Each setting runs in a process of its own, so that its peak memory is its own,
and the settings take turns, so that what else the machine does falls on all.
"""

import argparse
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

MODELS = ("sinusoids", "glyphs")


def settings():
    for model, mapping, xla, steps in itertools.product(
        MODELS, ("vectorized", "sequential"), (False, True), (1, 20)
    ):
        # A step of the convolutional model is long: one by one is the same.
        if model == "sinusoids" or steps == 1:
            yield {
                "model": model,
                "mapping": mapping,
                "xla": xla,
                "steps_per_execution": steps,
            }


def make(model):
    """Returns a compiled-to-be model, its loss and its episodes."""
    import keras
    import numpy as np

    import keras_meta

    if model == "sinusoids":
        network = keras_meta.backbones.mlp(hidden_units=(40, 40))
        episodes = keras_meta.episodes.sinusoids(
            shots=10, queries=10, meta_batch_size=25
        )
        return network, 0.01, "mse", episodes
    # Noise takes as long as glyphs do.
    images = np.random.default_rng(0).integers(0, 256, (2000, 28, 28, 1))
    episodes = keras_meta.episodes.from_arrays(
        images.astype("uint8"),
        np.repeat(np.arange(100), 20),
        ways=5,
        shots=1,
        queries=10,
        meta_batch_size=8,
    )
    network = keras_meta.backbones.conv4(
        outputs=5, filters=32, downsampling="strides"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return network, 0.4, loss, episodes


def measure(setting, seconds):
    """Runs one setting in this process and returns what it took."""
    import resource

    import tensorflow as tf

    import keras_meta

    network, rate, loss, episodes = make(setting["model"])
    model = keras_meta.MAML(
        network,
        inner_learning_rate=rate,
        task_mapping=setting["mapping"],
    )
    steps = setting["steps_per_execution"]
    model.compile(
        "adam",
        loss=loss,
        jit_compile=setting["xla"],
        steps_per_execution=steps,
    )
    tf.get_logger().setLevel("ERROR")

    def fit(count):
        started = time.perf_counter()
        model.fit(episodes, steps_per_epoch=count, verbose=0)
        return time.perf_counter() - started

    first = fit(steps)
    # Enough steps to fill the time, found by doubling.
    count = steps
    while fit(count) < seconds / 4:
        count *= 2
    elapsed = fit(4 * count)
    return {
        "steps_per_second": 4 * count / elapsed,
        "seconds_to_first_step": first,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / 1024,
    }


def run(setting, seconds, timeout):
    """Measures one setting in a process of its own; `None` if too slow."""
    command = [
        sys.executable,
        __file__,
        "--seconds",
        str(seconds),
        "--setting",
        json.dumps(setting),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"{setting} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def summarize(setting, results):
    """Returns the row of a setting: medians, and the spread of the speed."""
    if None in results or not results:
        return {**setting, "steps_per_second": None}
    speeds = [result["steps_per_second"] for result in results]
    row = {
        name: statistics.median(result[name] for result in results)
        for name in results[0]
    }
    return {**setting, **row, "slowest": min(speeds), "fastest": max(speeds)}


def table(rows, timeout):
    lines = [
        "| model | tasks run | XLA | steps per execution | steps a second "
        "(slowest to fastest) | first step, s | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["model"],
            row["mapping"],
            "on" if row["xla"] else "off",
            str(row["steps_per_execution"]),
        ]
        if row["steps_per_second"] is None:
            cells += [f"over {timeout:.0f} s", "", ""]
        else:
            cells += [
                f"{row['steps_per_second']:.3g} "
                f"({row['slowest']:.3g} to {row['fastest']:.3g})",
                f"{row['seconds_to_first_step']:.1f}",
                f"{row['peak_memory_mb']:.0f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=5.0, type=float)
    parser.add_argument("--timeout", default=180.0, type=float)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument(
        "--output", default="benchmarks/results", type=pathlib.Path
    )
    parser.add_argument("--setting", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if arguments.setting:
        print(json.dumps(measure(arguments.setting, arguments.seconds)))
        return

    chosen = [s for s in settings() if s["model"] in arguments.models]
    results = {json.dumps(setting): [] for setting in chosen}
    for number in range(arguments.rounds):
        for setting in chosen:
            known = results[json.dumps(setting)]
            if None in known:
                continue
            result = run(setting, arguments.seconds, arguments.timeout)
            known.append(result)
            speed = result and f"{result['steps_per_second']:.1f} steps/s"
            print(f"round {number + 1}: {setting}: {speed}", flush=True)
    rows = [summarize(s, results[json.dumps(s)]) for s in chosen]

    import keras
    import tensorflow as tf

    import keras_meta

    machine = {
        "keras_meta": keras_meta.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "rounds": arguments.rounds,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = table(rows, arguments.timeout)
    (arguments.output / "maml.md").write_text(text)
    (arguments.output / "maml.json").write_text(
        json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n"
    )
    print(f"\n{text}\n{machine}")


if __name__ == "__main__":
    main()
