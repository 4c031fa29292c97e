import pathlib
import subprocess
import sys

from matplotlib import image

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_matching_regression_runs_to_its_end(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "matching_regression.py",
            "--output",
            tmp_path,
            "--steps=80",
            "--test-episodes=50",
        ],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for name in ("mean of the", "nearest support", "bell of", "matching netw"):
        assert any(name in line and "±" in line for line in lines), name
    height, width = image.imread(tmp_path / "matching_regression.png").shape[:2]
    assert height > 300 and width > 1200
    assert str(tmp_path / "matching_regression.png") in done.stdout
