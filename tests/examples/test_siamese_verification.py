import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
from matplotlib import image

import keras_meta  # noqa: F401  (registers what is loaded)

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_siamese_verification_runs_to_its_end(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "siamese_verification.py",
            "--output",
            tmp_path,
            "--steps=10",
            "--pairs=400",
            "--false-accept-rate=0.1",
        ],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert "400 pairs: threshold" in done.stdout
    for kind in ("accepts", "rejects"):
        counts = re.findall(rf"false {kind} +(\d+) of 200 ", done.stdout)
        assert len(counts) == 2 and all(int(count) < 200 for count in counts)
    assert len(re.findall("  equal error rate", done.stdout)) == 2
    height, width = image.imread(tmp_path / "siamese_roc.png").shape[:2]
    assert height > 400 and width > 800
    model = keras.saving.load_model(tmp_path / "siamese_glyphs.keras")
    assert np.isfinite(model.threshold.numpy())
