import json

from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import run_example


def test_metagenrl_runs_to_its_end(tmp_path):
    printed = run_example(
        "metagenrl",
        "--steps=2",
        "--population=2",
        "--horizon=12",
        "--test-horizon=12",
        "--iterations=1",
        "--gradient-steps=2",
        "--test-tasks=2",
        "--seeds=0",
        "--families=cart-poles",
        "--methods",
        "MetaGenRL",
        "REINFORCE",
        output=tmp_path,
    )
    assert "cart-poles: random" in printed
    results = json.loads((tmp_path / "metagenrl.json").read_text())
    assert set(results["cart-poles"]) == {"random", "MetaGenRL", "REINFORCE"}
    assert image.imread(tmp_path / "metagenrl.png").shape[1] > 1000
