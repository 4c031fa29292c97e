import re

from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import run_example


def test_pearl_navigation_runs_to_its_end(tmp_path):
    printed = run_example(
        "pearl_navigation",
        "--steps=1",
        "--goals=2",
        "--horizon=10",
        "--rollouts=2",
        "--gradient-steps=1",
        "--test-goals=40",
        "--test-rollouts=2",
        output=tmp_path,
    )
    stays, knows = [
        float(value) for value in re.findall(r"^who .*: (.*)$", printed, re.M)
    ]
    # The mean distance of such goals is 0.38, and 0.1 a step is far.
    assert abs(stays + 3.8) < 0.6 and -0.8 < knows < -0.3
    assert "seed 0, 1 outer steps, 60 environment steps" in printed
    assert "return after [0, 1, 2] rollouts:" in printed
    assert printed.count("±") == 3
    height, width = image.imread(tmp_path / "pearl_navigation.png").shape[:2]
    assert height > 300 and width > 900
