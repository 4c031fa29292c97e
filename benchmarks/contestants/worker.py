"""One contestant in a process of its own, which runs when it is told to.

The first argument is a JSON object: the case, the contestant, the number of
threads, the gigabytes it may take, and a folder. The answers are JSON objects,
one a line: first what came of the start, then, for each line
`{"seconds": ...}` that is read, the milliseconds a step in each of the blocks
that were run.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time

import numpy as np

import contestants

# A block is as short as a clock can measure well, and has one step at least.
BLOCK_SECONDS = 0.2


def parse(name):
    """Returns the file of a contestant, and its settings.

    `"by_hand steps_per_execution=50"` is the kind `by_hand` with a setting.
    """
    kind, *words = name.split()
    file, given = contestants.KINDS[kind]
    settings = dict(given)
    for word in words:
        key, value = word.split("=")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return file, settings


def set_threads(threads, intra_op_threads):
    """Gives the library of this process its number of threads.

    Those within an operation are told apart: PyTorch has no others, and
    TensorFlow runs as many operations at once as there are threads.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(intra_op_threads)
    if "tensorflow" in sys.modules:
        threading = sys.modules["tensorflow"].config.threading
        threading.set_intra_op_parallelism_threads(intra_op_threads)
        threading.set_inter_op_parallelism_threads(threads)


def versions():
    found = {"python": platform.python_version()}
    for name in ("numpy", "tensorflow", "keras", "torch", "higher"):
        if name in sys.modules:
            found[name] = importlib.metadata.version(name)
    if "keras_meta" in sys.modules:
        found["keras_meta"] = sys.modules["keras_meta"].__version__
    return found


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Runner:
    """Runs a contestant in blocks of about `block_seconds`, or of one step."""

    def __init__(self, contestant, block_seconds):
        self.contestant = contestant
        self.block_seconds = block_seconds
        # The second step may still set things up; it is not measured.
        self.steps = contestant.granularity
        self.measure()
        self.measure()
        while self.seconds < self.block_seconds / 2:
            factor = self.block_seconds / max(self.seconds, 1e-4)
            units = min(factor, 8) * self.steps / contestant.granularity
            self.steps = contestant.granularity * max(2, round(units))
            self.measure()

    def measure(self):
        (self.seconds,) = self.contestant.run(self.steps, 1)

    def run(self, seconds):
        blocks = max(1, round(seconds / self.seconds))
        durations = self.contestant.run(self.steps, blocks)
        self.seconds = sum(durations) / len(durations)
        return [1000 * duration / self.steps for duration in durations]


def main():
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    order = json.loads(sys.argv[1])
    case, folder = order["case"], order["folder"]
    # Better to fail than to take the memory of the whole machine.
    limit = int(order["memory"] * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    file, settings = parse(order["contestant"])
    module = importlib.import_module(f"contestants.{file}")
    threads = order["threads"]
    set_threads(threads, settings.pop("intra_op_threads", threads))

    if "keras" in sys.modules:
        sys.modules["keras"].config.set_floatx(case.get("dtype", "float32"))
    started = time.perf_counter()
    contestant = module.make(case, folder, **settings)
    loss, arrays = contestant.check()
    first_step = time.perf_counter() - started
    np.savez(f"{folder}/check.npz", loss, *arrays)
    answer(
        first_step=first_step,
        loss=loss,
        versions=versions(),
        operations=getattr(contestant, "operations", None),
    )
    runner = None
    # An answer is measured one by one, for the slowest of them count.
    block = 0.0 if case["algorithm"] == "answer" else BLOCK_SECONDS
    for line in sys.stdin:
        runner = runner or Runner(contestant, block)
        times = runner.run(json.loads(line)["seconds"])
        answer(times=times, peak_memory=peak_memory())


if __name__ == "__main__":
    main()
