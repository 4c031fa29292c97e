"""
Title: Peak memory against inner steps
Description: One outer step of exact, recomputed, truncated, first-order and
    implicit MAML with 1 to 32 inner steps.
Accelerator: None

    python benchmarks/memory.py [--steps 1 2 4 8 16 32] [--output FOLDER]

Each setting runs in a process of its own. What is reported is how far the
peak memory of the process rises above what it had before its first outer
step: the tensors, and the graph that TensorFlow makes, which grows with the
inner steps where they are written out one by one.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

METHODS = {
    "exact": {},
    "recomputed": {"recompute": True},
    "truncated to 1": {"truncation": 1},
    "first order": {"first_order": True},
    "implicit": None,
}


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--steps", default=[1, 2, 4, 8, 16, 32], type=int, nargs="+"
    )
    parser.add_argument("--methods", default=list(METHODS), nargs="+")
    parser.add_argument("--examples", default=100, type=int)
    parser.add_argument("--filters", default=32, type=int)
    parser.add_argument("--output", default="benchmark_output")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(method, steps, examples, filters):
    """Takes two outer steps; returns megabytes, and seconds of the second."""
    import keras
    import numpy as np

    import keras_meta

    network = keras_meta.backbones.conv4(
        outputs=5, filters=filters, downsampling="strides"
    )
    settings = dict(inner_steps=steps, inner_learning_rate=0.01)
    if METHODS[method] is None:
        model = keras_meta.ImplicitMAML(network, **settings)
    else:
        model = keras_meta.MAML(network, **settings, **METHODS[method])
    model.compile(
        "sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    generator = np.random.default_rng(0)
    shape = (1, examples, 28, 28, 1)
    x = {
        "support_x": generator.normal(size=shape).astype("float32"),
        "support_y": generator.integers(0, 5, shape[:2]),
        "query_x": generator.normal(size=shape).astype("float32"),
    }
    y = generator.integers(0, 5, shape[:2])
    before = peak_megabytes()
    for _ in range(2):
        started = time.perf_counter()
        model.train_on_batch(x, y)
        seconds = time.perf_counter() - started
    return {"megabytes": peak_megabytes() - before, "seconds": seconds}


def peak_megabytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, but for macOS, which counts bytes.
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for method in dict.fromkeys(row["method"] for row in results):
        rows = [row for row in results if row["method"] == method]
        axes.plot(
            [row["steps"] for row in rows],
            [row["megabytes"] for row in rows],
            marker="o",
            label=method,
        )
    axes.set(
        xlabel="inner steps",
        ylabel="peak memory of an outer step (MB)",
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main():
    arguments = parse()
    if arguments.one:
        method, steps = arguments.one
        print(
            json.dumps(
                measure(
                    method, int(steps), arguments.examples, arguments.filters
                )
            )
        )
        return
    results = []
    for steps in arguments.steps:
        for method in arguments.methods:
            run = subprocess.run(
                [
                    sys.executable,
                    __file__,
                    "--one",
                    method,
                    str(steps),
                    f"--examples={arguments.examples}",
                    f"--filters={arguments.filters}",
                ],
                env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            result = json.loads(run.stdout.splitlines()[-1])
            results.append({"method": method, "steps": steps, **result})
            print(
                f"{method:15s} {steps:3d} steps {result['megabytes']:7.0f} MB "
                f"{result['seconds']:6.2f} s",
                flush=True,
            )
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    settings = {"examples": arguments.examples, "filters": arguments.filters}
    (output / "memory.json").write_text(
        json.dumps({"settings": settings, "results": results}, indent=1)
    )
    draw(results, output / "memory.png")
    print(f"\n| steps | {' | '.join(arguments.methods)} |")
    print("|---" * (len(arguments.methods) + 1) + "|")
    for steps in arguments.steps:
        cells = [
            f"{row['megabytes']:.0f}"
            for row in results
            if row["steps"] == steps
        ]
        print(f"| {steps} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
