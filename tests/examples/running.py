"""Runs an example as a user does, in a process of its own."""

import pathlib
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def run_example(name, *options, output, timeout=400):
    """Runs `examples/<name>.py` to its end; returns the lines it printed."""
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / f"{name}.py",
            "--output",
            str(output),
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
