import importlib
import json

import numpy as np
from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import run_example


def run(tmp_path, *options):
    return run_example(
        "compare_meta_rl",
        "--budget=90",
        "--test-tasks=2",
        "--rollouts=2",
        "--meta-batch-size=2",
        "--gradient-steps=1",
        *options,
        output=tmp_path,
    )


def test_compare_meta_rl_runs_to_its_end(tmp_path):
    methods = {"RL^2", "from scratch, DQN"}
    printed = run(
        tmp_path, "--families=bandits", "--methods", *methods, "--seeds", 0, 1
    )
    facts = json.loads((tmp_path / "bandits.json").read_text())
    rows = {row["method"]: row for row in facts["rows"]}
    assert set(rows) == methods
    for row in rows.values():
        assert row["rollouts"] == [0, 1, 2]
        # Those of all tasks and seeds.
        assert np.shape(row["values"]) == (4, 3)
        assert len(row["means"]) == len(row["intervals"]) == 3
    # Two trials a step, of 3 rollouts of 10 pulls.
    assert rows["RL^2"]["steps"] == 60 and rows["RL^2"]["outer_steps"] == 1
    assert rows["from scratch, DQN"]["steps"] == 0
    ends = [row["means"][-1] for row in facts["rows"]]
    assert ends == sorted(ends, reverse=True)
    table = (tmp_path / "bandits.md").read_text()
    assert table in printed and table.count(" ± ") == 4
    assert "The best of plain training is " in table
    height, width = image.imread(tmp_path / "bandits.png").shape[:2]
    assert height > 400 and width > 800


def test_family_is_skipped_where_mujoco_is_missing(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "mujoco" else find(name, *rest),
    )
    printed = run(tmp_path, "--families=half_cheetah")
    assert printed.startswith("half_cheetah is skipped: A half cheetah needs")
    assert not list(tmp_path.iterdir())
