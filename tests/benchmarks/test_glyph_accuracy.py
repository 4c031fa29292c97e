import json
import pathlib
import subprocess
import sys

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def test_measures_algorithms_of_episodes_and_of_pairs(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            BENCHMARKS / "glyph_accuracy.py",
            "--steps=1",
            "--episodes=4",
            "--ways=5",
            "--shots=1",
            "--algorithms",
            "PrototypicalNetwork",
            "SiameseNetwork, verification",
            "--output",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "glyph_accuracy.json").read_text())
    assert report["settings"]["steps"] == "1"
    assert [row["algorithm"] for row in report["results"]] == [
        "PrototypicalNetwork",
        "SiameseNetwork, verification",
    ]
    for row in report["results"]:
        assert 0 < row["accuracy"] < 1
        assert row["interval"] > 0
        assert row["episodes"] == 4
        cell = f"{100 * row['accuracy']:.1f} ± {100 * row['interval']:.1f}"
        assert f"| {row['algorithm']} | {cell} |" in done.stdout
