from tests.examples.running import run_example


def test_transfer_baselines_glyphs_runs_to_its_end(tmp_path):
    lines = run_example(
        "transfer_baselines_glyphs",
        "--epochs=1",
        "--steps=2",
        "--classes=20",
        "--test-episodes=10",
        output=tmp_path,
    ).splitlines()
    measured = [line for line in lines if "±" in line]
    for name in ("centroid", "cosine", "ridge", "logistic", "head", "all"):
        assert any(
            f", {name}" in line or f"_{name} " in line for line in measured
        )
    assert any(line.startswith("from scratch") for line in measured)
    assert any(line.startswith("RidgeHead") for line in measured)
    assert (tmp_path / "pretrained.keras").exists()
