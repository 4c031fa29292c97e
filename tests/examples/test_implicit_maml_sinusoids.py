from tests.examples.running import run_example


def test_implicit_maml_sinusoids_runs_to_its_end(tmp_path):
    printed = run_example(
        "implicit_maml_sinusoids",
        "--steps=4",
        "--inner-steps=4",
        "--test-episodes=20",
        output=tmp_path,
    )
    for step in (0, 1, 2, 4):
        assert f"after {step:3d} steps: mean squared error" in printed
    assert (tmp_path / "implicit_maml.keras").exists()
