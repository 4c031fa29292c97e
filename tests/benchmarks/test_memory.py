import json
import pathlib
import subprocess
import sys

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def test_measures_and_draws(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            BENCHMARKS / "memory.py",
            "--steps=2",
            "--methods",
            "recomputed",
            "--examples=5",
            "--filters=2",
            "--output",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "memory.json").read_text())["results"]
    assert [row["method"] for row in rows] == ["recomputed"]
    for row in rows:
        assert row["megabytes"] > 0
        assert row["seconds"] > 0
    assert (tmp_path / "memory.png").stat().st_size > 1000
    assert f"| 2 | {rows[0]['megabytes']:.0f} |" in done.stdout
