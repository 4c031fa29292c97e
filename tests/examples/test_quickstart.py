import keras
from matplotlib import image

import keras_meta  # noqa: F401  (registers what is loaded)
from tests.examples.running import run_example


def test_quickstart_runs_to_its_end(tmp_path):
    printed = run_example(
        "quickstart",
        "--sinusoid-steps=80",
        "--glyph-steps=5",
        "--test-episodes=8",
        output=tmp_path,
    )
    lines = printed.splitlines()
    assert any("MAML after 3 steps" in line and "±" in line for line in lines)
    assert any("nearest neighbor on pixels" in line for line in lines)
    assert "largest difference of a prediction after loading: 0.0" in lines
    height, width = image.imread(tmp_path / "quickstart.png").shape[:2]
    assert height > 500 and width > 800
    assert str(tmp_path / "quickstart.png") in printed
    model = keras.saving.load_model(tmp_path / "maml_glyphs.keras")
    assert model.inner_steps == 1
