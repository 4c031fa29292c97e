import re

import pytest
from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import run_example


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_plain_agents_runs_to_its_end(name, tmp_path):
    printed = run_example(
        "plain_agents",
        f"--agents={name}",
        "--iterations=2",
        "--rollouts=2",
        "--gradient-steps=1",
        "--horizon=5",
        "--tasks=2",
        output=tmp_path,
    )
    found = re.findall(rf"^{name}, one task: +([\d,]+) steps", printed, re.M)
    # A rollout that reaches its goal is shorter.
    assert found[0] == "0" and 2 <= int(found[1]) < int(found[2]) <= 20
    for steps in (0, 10, 20):
        row = rf"^{name}, 2 tasks: +{steps} steps: return .* ± [\d.]+$"
        assert re.search(row, printed, re.M), steps
    height, width = image.imread(tmp_path / "plain_agents.png").shape[:2]
    assert height > 300 and width > 400
