"""Training on several devices and workers, in processes of their own."""

import contextlib
import functools
import pickle
import subprocess
import sys

import pytest

from tests import workers


@functools.cache
def of_one_device(name, episodes):
    return workers.train(name, contextlib.nullcontext(), episodes=episodes)


def check(results, episodes=0, models=tuple(workers.MAKE)):
    for name in models:
        expected = of_one_device(name, episodes)
        assert "weights" in results[name]
        for what, values in results[name].items():
            if what == "logs":
                expected_logs = {key: expected["logs"][key] for key in values}
                workers.assert_close(values, expected_logs)
            else:
                workers.assert_close(values, expected[what])


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_execution", ["1", "2"])
def test_two_devices_train_as_one_does(steps_per_execution, tmp_path):
    arguments = [tmp_path / "results", "2", "7", steps_per_execution]
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers", *arguments],
        cwd=workers.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(pickle.loads((tmp_path / "results").read_bytes()), 7)


@pytest.mark.parametrize(
    "models",
    [
        ("MAML", "PrototypicalNetwork"),
        pytest.param(tuple(workers.MAKE), marks=pytest.mark.slow),
    ],
    ids=["two models", "all models"],
)
def test_two_workers_train_and_measure_as_one_device_does(models, tmp_path):
    for results in workers.results_of(2, tmp_path, "7", "1", "/".join(models)):
        check(results, 7, models)


@pytest.mark.slow
def test_four_workers_train_as_one_device_does(tmp_path):
    # Each worker must have a task of the last meta-batch, too.
    for results in workers.results_of(4, tmp_path, "8"):
        check(results, 8)


@pytest.mark.slow
def test_two_workers_take_two_steps_at_a_time(tmp_path):
    for results in workers.results_of(2, tmp_path, "7", "2"):
        check(results, 7)
