"""Runs a script as a user does, but in this process, which is faster."""

import contextlib
import io
import pathlib
import re
import runpy
import sys
import unittest.mock
import warnings

import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]


def run_example(name, *options, output, folder="examples"):
    """Runs `<folder>/<name>.py` to its end; returns what it printed."""
    path = str(ROOT / folder / f"{name}.py")
    command = [path, "--output", str(output), *map(str, options)]
    printed = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(unittest.mock.patch.object(sys, "argv", command))
        stack.enter_context(contextlib.redirect_stdout(printed))
        # The threads of this process are set already.
        stack.enter_context(
            unittest.mock.patch.object(
                tf.config.threading, "set_intra_op_parallelism_threads"
            )
        )
        # As in a process of its own, where they are no errors.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        runpy.run_path(path, run_name="__main__")
    return printed.getvalue()


def printed_totals(printed):
    """Returns the totals of the methods of an example of RL^2, by name."""
    rows = re.findall(r"^(.{18}) +([\d.]+) ±", printed, re.M)
    return {name.strip(): float(value) for name, value in rows}
