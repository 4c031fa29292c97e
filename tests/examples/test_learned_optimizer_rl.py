from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import run_example


def test_learned_optimizer_rl_runs_to_its_end(tmp_path):
    printed = run_example(
        "learned_optimizer_rl",
        "--steps=1",
        "--goals=2",
        "--inner-steps=1",
        "--rollouts=2",
        "--horizon=3",
        "--rates=0.1",
        "--test-goals=3",
        output=tmp_path,
    )
    assert "5141 numbers are learned." in printed
    for name in ("learned", "SGD", "Adam"):
        assert f"{name}: returns after [0, 2] rollouts" in printed
    assert printed.count("rate 0.1: ") == 2
    assert printed.count("learned better than ") == 2
    assert printed.count("±") == 8
    picture = image.imread(tmp_path / "learned_optimizer_rl.png")
    assert picture.shape[0] > 300 and picture.shape[1] > 400
