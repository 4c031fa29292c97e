from matplotlib import image

from tests.examples.running import run_example


def test_matching_regression_runs_to_its_end(tmp_path):
    printed = run_example(
        "matching_regression",
        "--steps=80",
        "--test-episodes=50",
        output=tmp_path,
    )
    lines = printed.splitlines()
    for name in ("mean of the", "nearest support", "bell of", "matching netw"):
        assert any(name in line and "±" in line for line in lines), name
    height, width = image.imread(tmp_path / "matching_regression.png").shape[:2]
    assert height > 300 and width > 1200
    assert str(tmp_path / "matching_regression.png") in printed
