import json
import pathlib
import subprocess
import sys

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def test_measures_one_setting():
    setting = {
        "model": "sinusoids",
        "mapping": "vectorized",
        "xla": False,
        "steps_per_execution": 1,
    }
    done = subprocess.run(
        [
            sys.executable,
            BENCHMARKS / "maml.py",
            "--seconds=0.1",
            "--setting",
            json.dumps(setting),
        ],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["steps_per_second"] > 0
    assert result["seconds_to_first_step"] > 0
    assert result["peak_memory_mb"] > 100
