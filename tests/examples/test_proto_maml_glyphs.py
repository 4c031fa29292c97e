from tests.examples.running import run_example


def test_proto_maml_glyphs_runs_to_its_end(tmp_path):
    printed = run_example(
        "proto_maml_glyphs",
        "--steps=1",
        "--ways=3",
        "--test-ways=4",
        "--test-episodes=10",
        output=tmp_path,
    )
    (line,) = [line for line in printed.splitlines() if " 4 ways:" in line]
    assert line.count("±") == 2
    assert (tmp_path / "proto_maml_glyphs.keras").exists()
