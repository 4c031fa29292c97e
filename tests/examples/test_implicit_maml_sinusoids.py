import pathlib
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_implicit_maml_sinusoids_runs_to_its_end(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "implicit_maml_sinusoids.py",
            "--output",
            tmp_path,
            "--steps=4",
            "--inner-steps=4",
            "--test-episodes=20",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for step in (0, 1, 2, 4):
        assert f"after {step:3d} steps: mean squared error" in done.stdout
    assert (tmp_path / "implicit_maml.keras").exists()
