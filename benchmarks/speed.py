"""
Title: Speed beside PyTorch and TensorFlow by hand
Description: Tasks a second of this package and of its peers, side by side.
Accelerator: None

    python benchmarks/speed.py [--rounds 7] [--seconds 3] [--cases ...]
        [--contestants ...] [--peers-python PYTHON] [--output FOLDER] [--sweep]

Each contestant runs in a process of its own that is made once and then takes
turns with the others, so that what else the machine does falls on all. Before
that, each must have found the same loss and the same gradient from the same
weights and data. `--peers-python` is the interpreter of an environment with
PyTorch, NumPy and higher.

A contestant is named by its kind and its settings, and any may be tried:

    --contestants keras_meta "keras_meta jit_compile=true" torch_loop
"""

import argparse
import contextlib
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile

import contestants
import numpy as np
import sweep
from contestants import cases

HERE = pathlib.Path(__file__).resolve().parent
# How far a loss or a gradient may be from that of the first contestant, in
# double precision; and how far a loss in single precision.
TOLERANCE = 1e-4
LOSS_TOLERANCE = 1e-3
LIMIT = "matrix_product"
REFERENCE = "by_hand"


class ContestantError(Exception):
    """A contestant that failed, or took too long."""


class Worker:
    """The process of one contestant; see `contestants/worker.py`."""

    def __init__(self, name, case, arguments):
        self.name = name
        self.timeout = arguments.timeout
        self.folder = tempfile.TemporaryDirectory()
        self.errors = open(f"{self.folder.name}/errors.txt", "w+")
        is_peer = name.split()[0] in contestants.PEERS
        order = {
            "case": case,
            "contestant": name,
            "threads": arguments.threads,
            "memory": arguments.memory,
            "folder": self.folder.name,
        }
        self.process = subprocess.Popen(
            [
                arguments.peers_python if is_peer else sys.executable,
                HERE / "contestants" / "worker.py",
                json.dumps(order),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={
                "TF_CPP_MIN_LOG_LEVEL": "2",
                **os.environ,
                "OMP_NUM_THREADS": str(arguments.threads),
                "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}",
                # Fresh, so that compiling takes its time.
                "TORCHINDUCTOR_CACHE_DIR": f"{self.folder.name}/inductor",
            },
        )

    def receive(self):
        ready, _, _ = select.select([self.process.stdout], [], [], self.timeout)
        if not ready:
            raise ContestantError(f"took more than {self.timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise ContestantError(lines[-1] if lines else "ended")
        return json.loads(line)

    def run(self, seconds):
        self.process.stdin.write(json.dumps({"seconds": seconds}) + "\n")
        self.process.stdin.flush()
        return self.receive()

    def found(self):
        """Returns the loss and the arrays to compare."""
        with np.load(f"{self.folder.name}/check.npz") as file:
            loss, *arrays = [file[name] for name in file.files]
        return float(loss), arrays

    def close(self):
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.errors):
            # What was not read of the order cannot be flushed any more.
            with contextlib.suppress(BrokenPipeError):
                file.close()
        self.folder.cleanup()


def error_of(case, found, reference):
    """Returns how far a loss and gradients are from those of the reference.

    The largest distance of an array, relative to its length.
    """
    (loss, arrays), (right_loss, right) = found, reference
    errors = [
        np.linalg.norm(one - other) / np.linalg.norm(other)
        for one, other in zip(arrays, right, strict=True)
    ]
    if has_query_loss(case):
        errors.append(abs(loss - right_loss) / abs(right_loss))
    return float(max(errors))


def has_query_loss(case):
    """Whether the loss of an outer step is the same for all contestants."""
    return case["algorithm"] in ("maml", "prototypical")


def measure_case(case, names, arguments, say):
    """Measures contestants side by side.

    Returns:
        A dictionary from the name of each contestant to what was measured:
        `times`, a list of the milliseconds a step of each round, and more; or
        `failure`, why there is nothing.
    """
    results = {name: {"times": []} for name in names}
    if case.get("compared", True):
        compare(case, results, arguments, say)
    with closing_workers() as workers:
        for name in names:
            start(name, case, results[name], workers, arguments, say)
        for number in range(arguments.rounds):
            order = list(workers)
            # Each is the first one once.
            shift = number % max(len(order), 1)
            for name in order[shift:] + order[:shift]:
                result = results[name]
                try:
                    answer = workers[name].run(arguments.seconds)
                except ContestantError as error:
                    result["failure"] = str(error)
                    workers.pop(name).close()
                    say(f"{name}: {error}")
                    continue
                result["times"].append(answer["times"])
                result["peak_memory"] = answer["peak_memory"]
            say(f"round {number + 1} of {arguments.rounds}")
    return results


@contextlib.contextmanager
def closing_workers():
    workers = {}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def compare(case, results, arguments, say):
    """Notes how far the results of each contestant are from `by_hand`.

    `by_hand` is the reference also where it is not measured: TensorFlow is
    always there.
    """
    case = cases.to_compare(case)
    reference = None
    for name in dict.fromkeys([REFERENCE, *results]):
        if name == LIMIT:
            continue
        result = results.get(name, {})
        with closing_workers() as workers:
            if start(name, case, result, workers, arguments, say):
                found = workers[name].found()
                reference = reference or found
                result["error"] = error_of(case, found, reference)
                say(f"{name}: error {result['error']:.1e}")


def start(name, case, result, workers, arguments, say):
    """Starts a contestant; returns whether it is there."""
    if "failure" in result:
        return False
    worker = Worker(name, case, arguments)
    workers[name] = worker
    try:
        result.update(worker.receive())
    except ContestantError as error:
        result["failure"] = str(error)
        workers.pop(name).close()
        say(f"{name}: {error}")
        return False
    say(f"{name}: first step after {result['first_step']:.1f} s")
    return True


def rows_of(case, results):
    """Returns the rows of the table of a case.

    A ratio says how many times as fast as a contestant this package is: the
    median over the rounds, and the least and the largest.
    """
    operations = cases.multiply_adds(case) * case["tasks"]
    limit = results.get(LIMIT, {})
    if limit.get("times"):
        limit = limit["operations"] / median_of(limit["times"]) / 1e6
    else:
        limit = None
    losses = [
        result["loss"]
        for name, result in results.items()
        if "loss" in result and name != LIMIT
    ]
    rows = []
    for name, result in results.items():
        row = {"contestant": name, "failure": result.get("failure")}
        rows.append(row)
        if row["failure"] or not result["times"]:
            continue
        blocks = [time for times in result["times"] for time in times]
        milliseconds = statistics.median(blocks)
        row.update(
            milliseconds=milliseconds,
            milliseconds_5=float(np.percentile(blocks, 5)),
            milliseconds_95=float(np.percentile(blocks, 95)),
            milliseconds_99=float(np.percentile(blocks, 99)),
            blocks=len(blocks),
            first_step=result["first_step"],
            peak_memory=result["peak_memory"],
            loss=result["loss"],
        )
        if name == LIMIT:
            row["gflops"] = limit
            continue
        if has_query_loss(case):
            middle = statistics.median(losses)
            row["loss_error"] = abs(row["loss"] - middle) / middle
        if case.get("compared", True):
            row["error"] = result.get("error")
        row["tasks_a_second"] = 1000 * case["tasks"] / milliseconds
        row["gflops"] = operations / milliseconds / 1e6
        if limit:
            row["share_of_limit"] = row["gflops"] / limit
    right = [row for row in rows if "error" in row and not is_wrong(row)]
    ours = [row["contestant"] for row in right if is_ours(row["contestant"])]
    for row in right:
        if is_ours(row["contestant"]):
            continue
        rounds = results[row["contestant"]]["times"]
        row["ratios"] = {}
        for name in ours:
            ratios = [
                statistics.median(theirs) / statistics.median(times)
                for theirs, times in zip(rounds, results[name]["times"])
            ]
            row["ratios"][name] = [
                statistics.median(ratios),
                min(ratios),
                max(ratios),
            ]
    return rows


def is_ours(name):
    return name.split()[0] == "keras_meta"


def median_of(rounds):
    return statistics.median(time for times in rounds for time in times)


def is_wrong(row):
    if "error" not in row:
        return False
    # What could not be compared is not right either, and neither is NaN.
    errors = row.get("error"), row.get("loss_error", 0.0)
    return not all(
        error is not None and error <= tolerance
        for error, tolerance in zip(errors, (TOLERANCE, LOSS_TOLERANCE))
    )


def table(case, rows):
    """Returns the Markdown table of a case."""
    ours = []
    for row in rows:
        ours += [name for name in row.get("ratios", {}) if name not in ours]
    head = [
        "contestant",
        "tasks a second",
        "ms a step (5 to 95 %)",
        "first step, s",
        "memory, MB",
        "GFLOP/s",
        "of the product",
        "error",
        *(f"times as fast: {name}" for name in ours),
    ]
    if case["algorithm"] == "answer":
        head[2] = "ms an answer, p50 (p99)"
    lines = [head, ["---"] * len(head)]
    for row in rows:
        if row["failure"] or "milliseconds" not in row:
            reason = row["failure"] or "not measured"
            cells = [row["contestant"], f"failed: {reason}"]
            lines.append(cells + [""] * (len(head) - 2))
            continue
        spread = f"{row['milliseconds_5']:.4g} to {row['milliseconds_95']:.4g}"
        if case["algorithm"] == "answer":
            spread = f"{row['milliseconds_99']:.4g}"
        share, error = row.get("share_of_limit"), row.get("error")
        cells = [
            row["contestant"],
            number_or_nothing(row.get("tasks_a_second"), "{:,.4g}"),
            f"{row['milliseconds']:.4g} ({spread})",
            f"{row['first_step']:.1f}",
            f"{row['peak_memory']:,.0f}",
            number_or_nothing(row["gflops"], "{:.3g}"),
            number_or_nothing(share, "{:.0%}"),
            number_or_nothing(error, "{:.0e}"),
        ]
        if is_wrong(row):
            cells[-1] += " **wrong**"
        for name in ours:
            ratio = row.get("ratios", {}).get(name)
            cells.append(
                "{:.2f} ({:.2f} to {:.2f})".format(*ratio) if ratio else ""
            )
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number_or_nothing(value, form):
    return "" if value is None else form.format(value)


def run_case(name, case, names, arguments):
    """Measures a case; returns what the report says of it."""

    def say(text):
        print(f"{name}: {text}", flush=True)

    groups = [list(names)]
    if cases.is_image(case):
        groups[0].append(LIMIT)
    # What takes most of the memory runs beside `keras_meta` alone.
    for large in case.get("alone", ()):
        if large in names:
            groups[0].remove(large)
            groups.append(["keras_meta", large])
    rows, versions = [], {}
    for group in groups:
        results = measure_case(case, group, arguments, say)
        known = [row["contestant"] for row in rows]
        rows += [
            row
            for row in rows_of(case, results)
            if row["contestant"] not in known
        ]
        for result in results.values():
            versions.update(result.get("versions", {}))
    settings = {k: v for k, v in case.items() if k != "contestants"}
    return {
        "case": name,
        "settings": settings,
        "gflop_a_task": cases.multiply_adds(case) / 1e9,
        "rows": rows,
        "versions": versions,
    }


def write(report, arguments):
    """Writes the report as it is so far."""
    text = ""
    for part in report["cases"]:
        text += f"## {part['case']}\n\n"
        text += f"{part['gflop_a_task']:.3g} GFLOP a task.\n\n"
        text += f"{table(part['settings'], part['rows'])}\n"
    text += f"{report['sweep']}\n" if report.get("sweep") else ""
    machine = ", ".join(f"{k} {v}" for k, v in report["machine"].items())
    text += f"{machine}\n"
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = "speed_sweep" if arguments.sweep else "speed"
    (arguments.output / f"{name}.md").write_text(text)
    (arguments.output / f"{name}.json").write_text(
        json.dumps(report, indent=2) + "\n"
    )
    return text


def parse_arguments(given=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", default=7, type=int)
    parser.add_argument("--seconds", default=3.0, type=float)
    parser.add_argument("--threads", default=2, type=int)
    parser.add_argument(
        "--memory",
        default=14.0,
        type=float,
        help="gigabytes at which a contestant is ended",
    )
    parser.add_argument(
        "--timeout",
        default=600.0,
        type=float,
        help="how long a contestant may take to start, or for one turn",
    )
    parser.add_argument("--cases", nargs="+")
    parser.add_argument("--contestants", nargs="+")
    parser.add_argument(
        "--set",
        default={},
        type=json.loads,
        help="settings of the cases to change, a JSON object",
    )
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument(
        "--output", default="benchmarks/results", type=pathlib.Path
    )
    arguments = parser.parse_args(given)
    arguments.known = sweep.CASES if arguments.sweep else cases.CASES
    for name in arguments.cases or ():
        if name not in arguments.known:
            parser.error(
                f"no case {name!r}; there are {', '.join(arguments.known)}"
            )
    for name in arguments.contestants or ():
        if name.split()[0] not in contestants.KINDS:
            kinds = ", ".join(contestants.KINDS)
            parser.error(f"no contestant {name!r}; there are {kinds}")
    return arguments


def main():
    arguments = parse_arguments()
    report = {
        "machine": {
            "cores": os.cpu_count(),
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
        },
        "cases": [],
    }
    for name in arguments.cases or arguments.known:
        case = {**arguments.known[name], **arguments.set}
        names = arguments.contestants
        if names is None:
            names = [*case["contestants"], *case.get("alone", ())]
        part = run_case(name, case, names, arguments)
        report["cases"].append(part)
        report["machine"].update(part.pop("versions"))
        if arguments.sweep:
            report["sweep"] = sweep.summarize(report["cases"], arguments.output)
        text = write(report, arguments)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
