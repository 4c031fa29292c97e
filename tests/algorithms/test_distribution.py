"""Training on several devices and workers, in processes of their own."""

import contextlib
import functools
import pickle
import subprocess
import sys

import pytest

from tests import workers


@functools.cache
def of_one_device(name):
    return workers.train(name, contextlib.nullcontext())


def check(results):
    for name in workers.MAKE:
        expected = of_one_device(name)
        assert "weights" in results[name]
        for what, values in results[name].items():
            if what == "logs":
                expected_logs = {key: expected["logs"][key] for key in values}
                workers.assert_close(values, expected_logs)
            else:
                workers.assert_close(values, expected[what])


@pytest.mark.slow
def test_two_devices_train_as_one_does(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers", tmp_path / "results", "2", "1"],
        cwd=workers.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(pickle.loads((tmp_path / "results").read_bytes()))


def test_two_workers_train_and_measure_as_one_device_does(tmp_path):
    for results in workers.results_of(2, tmp_path, "1"):
        check(results)


@pytest.mark.slow
def test_four_workers_train_as_one_device_does(tmp_path):
    for results in workers.results_of(4, tmp_path):
        check(results)
