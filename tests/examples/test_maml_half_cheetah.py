import pytest
from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import run_example

pytest.importorskip("mujoco", reason="MuJoCo is not installed")


def test_maml_half_cheetah_runs_to_its_end(tmp_path):
    printed = run_example(
        "maml_half_cheetah",
        "--family=velocities",
        "--steps=1",
        "--tasks=2",
        "--rollouts=2",
        "--horizon=5",
        "--test-tasks=2",
        output=tmp_path,
    )
    assert "60 steps in" in printed and "after 4 rollouts" in printed
    path = tmp_path / "maml_half_cheetah_velocities.png"
    assert image.imread(path).shape[1] > 800
