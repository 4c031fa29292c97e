from matplotlib import image

from tests.examples.running import run_example


def test_learned_optimizer_runs_to_its_end(tmp_path):
    printed = run_example(
        "learned_optimizer",
        "--steps=4",
        "--inner-steps=10",
        "--tasks=4",
        output=tmp_path,
    )
    lines = printed.splitlines()
    for name in ("learned", "SGD", "momentum", "RMSprop", "Adam"):
        # Two measures for two horizons and two other networks.
        found = [line for line in lines if f" {name} " in line and "±" in line]
        assert len(found) >= 8, name
    height, width = image.imread(tmp_path / "learned_optimizer.png").shape[:2]
    assert height > 500 and width > 800
    assert str(tmp_path / "learned_optimizer.png") in printed
