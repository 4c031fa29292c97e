import re

import keras
import numpy as np
from matplotlib import image

import keras_meta  # noqa: F401  (registers what is loaded)
from tests.examples.running import run_example


def test_siamese_verification_runs_to_its_end(tmp_path):
    printed = run_example(
        "siamese_verification",
        "--steps=10",
        "--pairs=400",
        "--false-accept-rate=0.1",
        output=tmp_path,
    )
    assert "400 pairs: threshold" in printed
    for kind in ("accepts", "rejects"):
        counts = re.findall(rf"false {kind} +(\d+) of 200 ", printed)
        assert len(counts) == 2 and all(int(count) < 200 for count in counts)
    assert len(re.findall("  equal error rate", printed)) == 2
    height, width = image.imread(tmp_path / "siamese_roc.png").shape[:2]
    assert height > 400 and width > 800
    model = keras.saving.load_model(tmp_path / "siamese_glyphs.keras")
    assert np.isfinite(model.threshold.numpy())
