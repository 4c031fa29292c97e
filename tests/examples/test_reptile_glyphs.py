import re

import keras

import keras_meta  # noqa: F401  (registers what is loaded)
from tests.examples.running import run_example


def test_reptile_glyphs_runs_to_its_end(tmp_path):
    printed = run_example(
        "reptile_glyphs",
        "--steps=6",
        "--evaluation-steps=3",
        "--test-episodes=12",
        "--seed=3",
        output=tmp_path,
    )
    measured = re.findall(
        r"^(each query on its own|transductive) +\S+% ± .*\(12 episodes\)$",
        printed,
        re.MULTILINE,
    )
    assert measured == ["each query on its own", "transductive"]
    model = keras.saving.load_model(tmp_path / "reptile_glyphs.keras")
    assert model.evaluation_steps == 3
    assert model.normalization_statistics == "support"
