import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def run(*arguments):
    return subprocess.run(
        [sys.executable, BENCHMARKS / "overhead.py", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_both_run_in_turns(tmp_path):
    done = run(
        "--cases=sinusoids-1-first",
        "--turns=2",
        "--seconds=0.05",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "overhead.json").read_text())["results"]
    times = np.array(result["times"])
    assert times.shape == (2, 2)
    assert np.all(times > 0)
    assert result["contestants"][0] == "keras_meta steps_per_execution=50"
    assert result["ratio"] == pytest.approx(np.mean(times[:, 0] / times[:, 1]))
    low, high = result["interval"]
    assert low <= result["ratio"] <= high
    text = (tmp_path / "overhead.md").read_text()
    assert f"| {result['ratio']:.3f} (" in text
    assert text in done.stdout


def test_cases_that_are_not_there():
    done = run("--cases", "omniglot")
    assert done.returncode == 2
    assert "Received: omniglot." in done.stderr


def test_contestants_of_another_library():
    done = run("--contestants", "keras_meta", "torch_loop compiled=true")
    assert done.returncode == 2
    assert "Received: 'torch_loop compiled=true'." in done.stderr


def test_too_few_turns():
    done = run("--turns=1")
    assert done.returncode == 2
    assert "--turns must be 2 or more" in done.stderr
