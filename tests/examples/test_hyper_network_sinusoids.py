import keras
from matplotlib import image

from tests.examples.running import run_example


def test_hyper_network_sinusoids_runs_to_its_end(tmp_path):
    lines = run_example(
        "hyper_network_sinusoids",
        "--steps=20",
        "--test-episodes=20",
        output=tmp_path,
    ).splitlines()
    table = {
        line.split()[0]: line.split()[1] for line in lines if " ± " in line
    }
    # All weights of 1-40-40-1; of the one large matrix 4 columns and 4 rows;
    # a factor for each unit and the biases; the last layer.
    assert table == {
        "all": "1,761",
        "low_rank": "481",
        "film": "162",
        "head": "41",
    }
    assert keras.saving.load_model(tmp_path / "one_wave.keras").built
    height, width = image.imread(tmp_path / "hyper_network.png").shape[:2]
    assert height > 300 and width > 1000
