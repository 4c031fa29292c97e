import pathlib
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_meta_sgd_sinusoids_runs_to_its_end(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "meta_sgd_sinusoids.py",
            "--output",
            tmp_path,
            "--steps=20",
            "--test-episodes=20",
            "--test-shots=5",
            "--seeds=0",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if "| 0 | 5 |" in line]
    assert row.count("±") == 3
    for name in ("MAML", "Meta-SGD"):
        assert (tmp_path / f"{name}_seed0.keras").exists()
