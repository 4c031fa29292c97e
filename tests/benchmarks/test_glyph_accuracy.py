import json

from tests.examples.running import run_example


def test_measures_algorithms_of_episodes_and_of_pairs(tmp_path):
    printed = run_example(
        "glyph_accuracy",
        "--steps=1",
        "--episodes=4",
        "--ways=5",
        "--shots=1",
        "--algorithms",
        "PrototypicalNetwork",
        "SiameseNetwork, verification",
        folder="benchmarks",
        output=tmp_path,
    )
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
        assert f"| {row['algorithm']} | {cell} |" in printed
