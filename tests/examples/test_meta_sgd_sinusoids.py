from tests.examples.running import run_example


def test_meta_sgd_sinusoids_runs_to_its_end(tmp_path):
    printed = run_example(
        "meta_sgd_sinusoids",
        "--steps=20",
        "--test-episodes=20",
        "--test-shots=5",
        "--seeds=0",
        output=tmp_path,
    )
    (row,) = [line for line in printed.splitlines() if "| 0 | 5 |" in line]
    assert row.count("±") == 3
    for name in ("MAML", "Meta-SGD"):
        assert (tmp_path / f"{name}_seed0.keras").exists()
