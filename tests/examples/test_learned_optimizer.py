import pathlib
import subprocess
import sys

from matplotlib import image

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_learned_optimizer_runs_to_its_end(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "learned_optimizer.py",
            "--output",
            tmp_path,
            "--steps=8",
            "--tasks=4",
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for name in ("learned", "SGD", "momentum", "RMSprop", "Adam"):
        # Two measures for two horizons and two other networks.
        found = [line for line in lines if f" {name} " in line and "±" in line]
        assert len(found) >= 8, name
    height, width = image.imread(tmp_path / "learned_optimizer.png").shape[:2]
    assert height > 500 and width > 800
    assert str(tmp_path / "learned_optimizer.png") in done.stdout
