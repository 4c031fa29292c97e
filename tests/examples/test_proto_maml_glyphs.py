import pathlib
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_proto_maml_glyphs_runs_to_its_end(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "proto_maml_glyphs.py",
            "--output",
            tmp_path,
            "--steps=1",
            "--ways=3",
            "--test-ways=4",
            "--test-episodes=10",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if " 4 ways:" in line]
    assert line.count("±") == 2
    assert (tmp_path / "proto_maml_glyphs.keras").exists()
