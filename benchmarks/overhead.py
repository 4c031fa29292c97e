"""
Title: What the package adds to the same mathematics written by hand
Description: Both in turns within one process, so that both meet the same
    machine, and the median of what one takes by what the other takes.
Accelerator: None

    python benchmarks/overhead.py [--cases omniglot-1-second ...]
        [--contestants keras_meta by_hand] [--turns 20] [--seconds 3]
        [--intra-op-threads 1] [--output FOLDER]

`speed.py` has a process for each contestant, and rounds of seconds, between
which a shared machine changes by more than what is sought here. Each case
runs in a process of its own, and a turn is one epoch of `--seconds`. What is
reported is the median over the turns of the ratio of both times, with its
95 % interval (1,000 samples of the turns). `--contestants` are two that are
compared in place of those, named as for `speed.py`.
"""

import argparse
import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
from contestants import KINDS
from contestants import PEERS
from contestants import cases
from contestants import worker

CASES = [
    name for name, case in cases.CASES.items() if case["algorithm"] != "answer"
]


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--cases", default=CASES, nargs="+")
    parser.add_argument("--contestants", nargs=2)
    parser.add_argument("--turns", default=20, type=int)
    parser.add_argument("--seconds", default=3.0, type=float)
    parser.add_argument("--threads", default=2, type=int)
    parser.add_argument("--intra-op-threads", type=int)
    parser.add_argument("--output", default="benchmark_output")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.cases if name not in CASES]
    if unknown:
        parser.error(
            f"--cases must be among {', '.join(CASES)}. "
            f"Received: {', '.join(unknown)}."
        )
    kinds = [kind for kind in KINDS if kind not in PEERS]
    for name in arguments.contestants or ():
        if name.split(" ")[0] not in kinds:
            parser.error(
                f"--contestants must begin with one of {', '.join(kinds)}. "
                f"Received: {name!r}."
            )
    if arguments.turns < 2 or arguments.seconds <= 0:
        parser.error(
            "--turns must be 2 or more, and --seconds positive. Received: "
            f"{arguments.turns} and {arguments.seconds}."
        )
    return arguments


def contestants_of(case):
    """Returns the names of both, as `speed.py` has them."""
    if case["algorithm"] == "reptile":
        # What `fit()` logs is no small part of this step.
        return "keras_meta", "by_hand logs=true"
    if cases.is_image(case):
        return "keras_meta", "by_hand"
    several = "steps_per_execution=50"
    return f"keras_meta {several}", f"by_hand {several} jit_compile=true"


def measure(case, names, turns, seconds, threads, intra_op_threads):
    """Returns the milliseconds a step of both contestants in each turn."""
    parsed = [worker.parse(name) for name in names]
    modules = [
        importlib.import_module(f"contestants.{file}") for file, _ in parsed
    ]
    worker.set_threads(threads, intra_op_threads or threads)
    runners = [
        worker.Runner(module.make(case, None, **settings), seconds)
        for module, (_, settings) in zip(modules, parsed)
    ]
    times = []
    for turn in range(turns):
        # Each goes first in half of the turns.
        order = (0, 1) if turn % 2 else (1, 0)
        pair = {which: runners[which].run(seconds) for which in order}
        times.append([float(np.mean(pair[which])) for which in (0, 1)])
    return times


def summarize(times):
    """Returns the median ratio of pairs of times, and its 95 % interval."""
    times = np.array(times)
    ratios = times[:, 0] / times[:, 1]
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(ratios, (1000, len(ratios))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {
        "milliseconds": np.median(times, axis=0).tolist(),
        "ratio": float(np.median(ratios)),
        "interval": [float(low), float(high)],
    }


def table(results):
    lines = [
        "| case | contestants | ms a step | ratio (95 %) |",
        "|---|---|---|---|",
    ]
    for result in results:
        times = ", ".join(f"{time:,.4g}" for time in result["milliseconds"])
        low, high = result["interval"]
        lines.append(
            f"| {result['case']} | {', '.join(result['contestants'])} "
            f"| {times} | {result['ratio']:.3f} ({low:.3f} to {high:.3f}) |"
        )
    return "\n".join(lines)


def main():
    arguments = parse()
    if arguments.one:
        case = cases.CASES[arguments.one]
        names = arguments.contestants or contestants_of(case)
        times = measure(
            case,
            names,
            arguments.turns,
            arguments.seconds,
            arguments.threads,
            arguments.intra_op_threads,
        )
        print(json.dumps({"contestants": names, "times": times}))
        return
    results = []
    for name in arguments.cases:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--one", name],
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{name} failed with code {done.returncode}.")
        found = json.loads(done.stdout.splitlines()[-1])
        results.append({"case": name, **found, **summarize(found["times"])})
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    report = {"arguments": vars(arguments), "results": results}
    (output / "overhead.json").write_text(json.dumps(report, indent=1))
    (output / "overhead.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
