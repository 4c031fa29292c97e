import json

from matplotlib import image

from tests.examples.running import run_example


def test_compare_everything_runs_to_its_end(tmp_path):
    lines = run_example(
        "compare_everything",
        "--seconds=0.1",
        "--test-episodes=10",
        "--problems",
        "sinusoids",
        "--algorithms",
        "RidgeHead",
        "FrozenRepresentation, ridge",
        output=tmp_path,
    ).splitlines()
    results = json.loads((tmp_path / "comparison.json").read_text())
    rows = {row["algorithm"]: row for row in results["sinusoids"]}
    assert set(rows) == {"RidgeHead", "FrozenRepresentation, ridge"}
    for row in rows.values():
        assert len(row["values"]) == 10 and row["training_steps"] >= 1
        assert row["seconds_to_adapt"] > 0 and row["megabytes"] >= 0
    # A kernel and a bias, on 32 and on 64 features.
    assert rows["RidgeHead"]["weights_per_task"] == 33
    assert rows["FrozenRepresentation, ridge"]["weights_per_task"] == 65
    means = [row["mean"] for row in results["sinusoids"]]
    assert means == sorted(means)
    assert any(line.startswith("The best learner, RidgeHead") for line in lines)
    path = tmp_path / "compare_everything.png"
    height, width = image.imread(path).shape[:2]
    assert height > 150 and width > 600
