import pathlib
import re

import keras_meta
from benchmarks import devices
from tests import small_models

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "devices.md"


def test_measures_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setitem(
        devices.MODELS,
        "PrototypicalNetwork",
        lambda: dict(
            network=keras_meta.backbones.mlp((28, 28, 1), (2,), None), ways=5
        ),
    )
    cells = devices.measure("PrototypicalNetwork", tmp_path)
    # Five means of two numbers, and which of the five there are.
    assert cells[1] == "0.1 kB"
    assert [cell.split()[1] for cell in cells] == ["kB", "kB", "ms", "kB", "ms"]


def test_all_algorithms_are_measured_and_told_of():
    assert set(devices.MODELS) == set(small_models.SETTINGS)
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert set(rows) >= set(devices.MODELS)
