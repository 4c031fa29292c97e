from matplotlib import image

from tests.examples.running import run_example


def test_neural_processes_sinusoids_runs_to_its_end(tmp_path):
    lines = run_example(
        "neural_processes_sinusoids",
        "--steps=40",
        "--test-episodes=20",
        output=tmp_path,
    ).splitlines()
    for name in ("ConditionalNeuralProcess", "AttentiveNeuralProcess"):
        (line,) = [line for line in lines if line.startswith(f"{name}: ")]
        assert line.count("±") == 2 and "in the band" in line
    height, width = image.imread(tmp_path / "neural_processes.png").shape[:2]
    assert height > 300 and width > 1000
