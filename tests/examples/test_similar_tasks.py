from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import run_example


def test_similar_tasks_runs_to_its_end(tmp_path):
    printed = run_example(
        "similar_tasks",
        "--steps=4",
        "--known-tasks=2",
        "--known-iterations=1",
        "--siamese-steps=1",
        "--batch-size=8",
        "--horizon=12",
        "--epochs=1",
        "--iterations=1",
        "--maml-steps=1",
        "--unseen-tasks=20",
        "--test-tasks=2",
        output=tmp_path,
    )
    assert "the nearest of 2 goals is found from 4 random steps" in printed
    assert "pooled reaches" in printed
    assert image.imread(tmp_path / "similar_tasks.png").shape[1] > 600
