import importlib.util
import pathlib
import sys

import pytest

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "rl.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_rl", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in (
        ("TASKS", 2),
        ("ROLLOUTS", 2),
        ("HORIZON", 4),
        ("EPOCHS", 1),
        ("UNITS", 4),
        ("run", run_here(module)),
    ):
        monkeypatch.setattr(module, name, value)
    # The threads of this process are set already.
    monkeypatch.setattr(module, "in_tensorflow", in_this_process)
    return module


def in_this_process(intra_op_threads=None):
    import tensorflow as tf

    import keras_meta
    import keras_meta.rl

    return tf, keras_meta


def run_here(module):
    def run(name, arguments):
        try:
            return module.CONTESTANTS[name](arguments)
        except ModuleNotFoundError as error:
            assert error.name == "torch"

    return run


def test_measures_what_it_says(benchmark, tmp_path, monkeypatch, capsys):
    names = ["navigation, a network", "MAML, fit()", "MAML, PyTorch"]
    command = ["rl.py", "--rounds=1", "--seconds=0.01", "--rows=4", "--tasks=2"]
    command += ["--output", str(tmp_path), "--contestants", *names]
    monkeypatch.setattr(sys, "argv", command)
    benchmark.main()
    printed = capsys.readouterr().out
    text = (tmp_path / "rl.md").read_text()
    row = next(line for line in text.splitlines() if "| MAML, fit()" in line)
    steps, updates, first, outside = [
        cell.strip() for cell in row.strip("|").split("|")[1:]
    ]
    # Two tasks of two rollouts of four steps, before and after adapting.
    assert float(steps.replace(",", "")) == pytest.approx(
        float(updates) * 32, rel=0.02, abs=1
    )
    assert float(first) > 0 and outside.endswith("%")
    if importlib.util.find_spec("torch") is None:
        assert "MAML, PyTorch: left out" in printed
    else:
        assert "fit() / PyTorch" in text
