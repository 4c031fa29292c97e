import json
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def test_measures_reckons_and_draws(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            BENCHMARKS / "scaling.py",
            "--workers=2",
            "--models=PrototypicalNetwork",
            "--steps=6",
            "--tasks=1",
            "--filters=2",
            "--output",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "scaling.json").read_text())
    alone, together = results["measured"]
    assert (alone["workers"], together["workers"]) == (1, 2)
    assert alone["reckoned"] == alone["cpu_seconds"] > 0
    # Four convolutions of 2 filters, with batch normalization.
    weights = (18 + 3 * 36) + 4 * 2 * 2
    assert together["megabytes"] == pytest.approx(4e-6 * weights)

    (row,) = [
        row
        for row in results["predicted"]
        if row["network"] == "10 Gbit/s" and row["speed"] == 1
    ]
    assert row["efficiency"]["1"] == 1
    # In a ring of 4: 6 messages of 50 microseconds for each of 3 collectives,
    # and one and a half times the bits.
    seconds = 6 * 50e-6 * 3 + 1.5 * 8 * 4 * weights / 10e9
    expected = alone["cpu_seconds"] / (alone["cpu_seconds"] + seconds)
    assert row["efficiency"]["4"] == pytest.approx(expected)
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    assert (tmp_path / "scaling.md").read_text() in done.stdout
