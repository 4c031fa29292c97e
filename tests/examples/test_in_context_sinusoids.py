from matplotlib import image

from tests.examples.running import run_example


def test_in_context_sinusoids_runs_to_its_end(tmp_path):
    lines = run_example(
        "in_context_sinusoids",
        "--steps=5",
        "--test-episodes=10",
        output=tmp_path,
    ).splitlines()
    moved = {
        line.split(":")[0]: float(line.split()[-1])
        for line in lines
        if "backwards" in line
    }
    assert moved["InContextLearner"] < 1e-3
    assert moved["SNAIL"] > 1e-3
    assert moved["MemoryAugmentedNetwork"] > 1e-3
    height, width = image.imread(tmp_path / "in_context.png").shape[:2]
    assert height > 300 and width > 1000
