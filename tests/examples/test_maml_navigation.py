from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import run_example


def test_maml_navigation_runs_to_its_end(tmp_path):
    printed = run_example(
        "maml_navigation",
        "--steps=1",
        "--goals=2",
        "--rollouts=2",
        "--inner-steps=2",
        "--test-goals=4",
        "--test-rollouts=2",
        "--outer-update=reinforce",
        "--seeds=0",
        # Its tests train the baseline.
        "--pooled-steps=0",
        output=tmp_path,
    )
    assert "seed 0, 1 outer steps: return after [0, 2, 4] rollouts:" in printed
    assert printed.count("±") >= 3
    height, width = image.imread(tmp_path / "maml_navigation.png").shape[:2]
    assert height > 300 and width > 900
