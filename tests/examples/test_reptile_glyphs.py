import pathlib
import re
import subprocess
import sys

import keras

import keras_meta  # noqa: F401  (registers what is loaded)

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples/reptile_glyphs.py"


def test_reptile_glyphs_runs_to_its_end(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLE,
            "--output",
            tmp_path,
            "--steps=6",
            "--evaluation-steps=3",
            "--test-episodes=12",
            "--seed=3",
        ],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    measured = re.findall(
        r"^(each query on its own|transductive) +\S+% ± .*\(12 episodes\)$",
        done.stdout,
        re.MULTILINE,
    )
    assert measured == ["each query on its own", "transductive"]
    model = keras.saving.load_model(tmp_path / "reptile_glyphs.keras")
    assert model.evaluation_steps == 3
    assert model.normalization_statistics == "support"
