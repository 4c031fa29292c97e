import pytest
from matplotlib import image

from tests.examples.running import run_example

pytest.importorskip(
    "keras_meta.rl", reason="needs TF-Agents", exc_type=ImportError
)


def test_reptile_rl_runs_to_its_end(tmp_path):
    printed = run_example(
        "reptile_rl",
        # PPO is traced for long; its own tests run it.
        "--agents=ddpg",
        "--steps=1",
        "--rollouts=2",
        "--test-iterations=1",
        "--horizon=4",
        "--tasks=2",
        output=tmp_path,
    )
    for name in ("Reptile", "fine-tuning", "from scratch"):
        assert f"ddpg, {name}: " in printed
    assert printed.count("after 2 rollouts") == 3
    height, width = image.imread(tmp_path / "reptile_rl.png").shape[:2]
    assert height > 300 and width > 400
    assert str(tmp_path / "reptile_rl.png") in printed
