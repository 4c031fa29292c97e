import json
import re
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta  # noqa: F401  (registers what is loaded)
from tests.episodes.test_challenge_runs import write_runs
from tests.examples.running import run_example


def write_background(folder, name, alphabets, seed):
    """Writes an archive as the Omniglot repository has them, but small."""
    generator = np.random.default_rng(seed)
    with zipfile.ZipFile(
        folder / f"images_background_{name}.zip", "w"
    ) as archive:
        for alphabet, characters in alphabets.items():
            for character in range(characters):
                base = generator.random((7, 7)) < 0.3
                for drawer in range(5):
                    noise = generator.random((7, 7)) < 0.05
                    pixels = 255 * np.logical_not(base ^ noise).repeat(15, 0)
                    pixels = pixels.repeat(15, 1).astype("uint8")[..., None]
                    archive.writestr(
                        f"images_background_{name}/{alphabet}/"
                        f"character{character:02d}/{drawer:02d}.png",
                        tf.io.encode_png(pixels).numpy(),
                    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("omniglot")
    write_background(folder, "small1", {"Greek": 4, "Korean": 4}, seed=1)
    write_background(folder, "small2", {"Greek": 4, "Sanskrit": 21}, seed=2)
    write_runs(folder / "runs", runs=2)
    return folder


def run(data, output, *options):
    return run_example(
        "prototypical_omniglot",
        "--data",
        data,
        "--steps=2",
        "--ways=8",
        "--width=4",
        "--test-episodes=3",
        "--views=2",
        *options,
        output=output,
    )


def test_trains_validates_and_runs_the_challenge(data, tmp_path):
    printed = run(
        data,
        tmp_path / "output",
        "--validation=small2",
        "--runs",
        data / "runs",
        "--seeds",
        "3",
        "4",
    )
    assert "images of 8 characters, Greek, Korean." in printed
    assert "Left out, since they are trained on: Greek." in printed
    for views in (1, 2):
        found = re.search(
            rf"challenge error, {views} view\(s\): (.*)%, (\d+) errors of 40",
            printed,
        )
        assert float(found[1]) == pytest.approx(100 * int(found[2]) / 40)
        assert f"validation error, {views} view(s)" in printed
    assert "run 01:" in printed and "run 02:" in printed
    assert re.search(r"validation error.* ± .*\(2 seeds\)", printed)
    report = json.loads((tmp_path / "output/results.json").read_text())
    assert [result["seed"] for result in report["results"]] == [3, 4]
    assert list(report["results"][0]["alphabets_1"]) == ["Sanskrit"]
    model = keras.saving.load_model(tmp_path / "output/seed3.keras")
    assert model.network.input_shape == (None, 28, 28, 1)


def test_a_trial_that_names_a_missing_file_is_known_before_training(
    data, tmp_path, monkeypatch
):
    write_runs(tmp_path / "runs", runs=1)
    (tmp_path / "runs/run01/test/item03.png").unlink()
    monkeypatch.setattr(keras.Model, "fit", None)
    with pytest.raises(FileNotFoundError, match="item03.png, which is missing"):
        run(data, tmp_path / "output", "--runs", tmp_path / "runs")
    assert not (tmp_path / "output").exists()
