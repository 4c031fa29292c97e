import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
# Where PyTorch and higher are, if not here.
PEERS_PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import keras
    import speed

    keras.config.set_floatx("float64")
    yield speed
    keras.config.set_floatx("float32")


def arguments_for(speed, output, *given):
    return speed.parse_arguments([f"--output={output}", *given])


def small(name):
    """Returns a case that takes seconds."""
    import speed

    case = {**speed.cases.CASES[name], "width": 4, "queries": 2}
    if name == "prototypical":
        case["ways"] = 5
    elif not name.startswith("answer"):
        case["tasks"] = 2
    return speed.cases.to_compare(case)


def made(contestant, case, folder):
    from contestants import worker

    file, settings = worker.parse(contestant)
    module = importlib.import_module(f"contestants.{file}")
    return module.make(case, str(folder), **settings)


def test_measures_side_by_side(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            FOLDER / "speed.py",
            "--rounds=1",
            "--seconds=0.01",
            "--cases",
            "sinusoids-1-second",
            '--set={"tasks": 2, "width": 4}',
            f"--output={tmp_path}",
            f"--peers-python={tmp_path / 'nothing'}",
            "--contestants",
            "keras_meta steps_per_execution=4",
            "by_hand",
            "keras_meta task_mapping=nonsense",
        ],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "speed.json").read_text())
    (part,) = report["cases"]
    ours, by_hand, wrong = part["rows"]
    assert ours["error"] < 1e-9 and by_hand["error"] == 0.0
    assert by_hand["tasks_a_second"] == pytest.approx(
        2000 / by_hand["milliseconds"]
    )
    ratio, least, largest = by_hand["ratios"][ours["contestant"]]
    assert 0 < least <= ratio <= largest
    # One that fails does not stop the others.
    assert "nonsense" in wrong["failure"]
    text = (tmp_path / "speed.md").read_text()
    assert f"| {wrong['contestant']} | failed: " in text
    assert report["machine"]["keras_meta"]


@pytest.mark.parametrize(
    "name",
    [
        "omniglot-1-second",
        "sinusoids-5-first",
        "prototypical",
        "reptile",
        "answer-omniglot",
    ],
)
def test_contestants_agree(speed, tmp_path, name):
    case = small(name)
    names = ["keras_meta", "plain_tensorflow"]
    if name.startswith("answer"):
        names.remove("plain_tensorflow")
    reference = made("by_hand", case, tmp_path).check()
    for contestant in names:
        found = made(contestant, case, tmp_path).check()
        error = speed.error_of(case, found, reference)
        assert error < 1e-9, contestant


def test_reptile_by_hand_computes_what_fit_logs(speed, tmp_path):
    case = small("reptile")
    by_hand = made("by_hand logs=true", case, tmp_path)
    without = made("by_hand", case, tmp_path)
    assert speed.error_of(case, by_hand.check(), without.check()) < 1e-9
    ours = made("keras_meta", case, tmp_path)
    logs = ours.model.fit(ours.first, verbose=0).history
    from contestants import by_hand as file

    expected = [logs[name][0] for name in file.LOGS]
    np.testing.assert_allclose(by_hand.logged, expected, rtol=1e-9)


# What `PEERS_PYTHON` runs: the check of each pair of a case and a contestant.
PEER_CHECKS = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import importlib, torch, higher
from contestants import worker
for number, (case, name) in enumerate(json.load(open(sys.argv[2]))):
    file, settings = worker.parse(name)
    module = importlib.import_module(f"contestants.{file}")
    contestant = module.make(case, "", **settings)
    loss, arrays = contestant.check()
    assert all(time > 0 for time in contestant.run(1, 2))
    np.savez(f"{sys.argv[3]}/{number}.npz", loss, *arrays)
"""


def test_peers_agree(speed, tmp_path):
    functional = ["torch_loop", "torch_vmap", "higher"]
    pairs = [
        (name, contestant)
        for name, contestants in {
            "omniglot-1-second": functional,
            "omniglot-5-first": functional,
            "sinusoids-5-second": functional,
            "prototypical": ["torch"],
            "reptile": ["torch", "torch fused=true"],
            "answer-omniglot": ["torch_loop"],
            "answer-sinusoids": ["torch_loop"],
        }.items()
        for contestant in contestants
    ]
    order = tmp_path / "pairs.json"
    order.write_text(json.dumps([(small(one), other) for one, other in pairs]))
    done = subprocess.run(
        [PEERS_PYTHON, "-c", PEER_CHECKS, FOLDER, order, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    references = {
        name: made("by_hand", small(name), tmp_path).check()
        for name, _ in pairs
    }
    for number, (name, contestant) in enumerate(pairs):
        with np.load(tmp_path / f"{number}.npz") as file:
            loss, *arrays = [file[key] for key in file.files]
        found = float(loss), arrays
        error = speed.error_of(small(name), found, references[name])
        assert error < 1e-9, (name, contestant)


def test_wrong_gradient_has_no_ratio(speed):
    case = speed.cases.CASES["sinusoids-1-second"]
    reference = 1.0, [np.ones(4), np.ones(4)]
    wrong = 1.0, [np.ones(4), np.ones(4) + 1e-3]
    error = speed.error_of(case, wrong, reference)
    assert error == pytest.approx(1e-3)
    other_loss = 1.001, reference[1]
    assert speed.error_of(case, other_loss, reference) == pytest.approx(1e-3)
    result = {
        "times": [[2.0, 2.0], [4.0]],
        "first_step": 1.0,
        "loss": 2.0,
        "peak_memory": 100.0,
    }
    results = {
        "keras_meta": {**result, "error": 1e-7},
        "by_hand": {**result, "times": [[1.0], [4.0]], "error": 1e-7},
        "higher": {**result, "error": error},
    }
    ours, by_hand, wrong = speed.rows_of(case, results)
    assert by_hand["ratios"] == {"keras_meta": [0.75, 0.5, 1.0]}
    assert "ratios" not in wrong
    assert "**wrong**" in speed.table(case, [ours, by_hand, wrong])


def test_arithmetic_is_counted(speed):
    case = {
        **speed.cases.CASES["sinusoids-1-first"],
        "width": 1,
        "shots": 1,
        "queries": 0,
    }
    # Three layers of one multiply-add: forward, to the weights, and to the
    # inputs of all but the first.
    assert speed.cases.multiply_adds(case) == 2 * 8
    second = {**case, "first_order": False}
    assert speed.cases.multiply_adds(second) == 2 * (8 + 14)
    omniglot = speed.cases.CASES["omniglot-1-second"]
    assert speed.cases.multiply_adds(omniglot) == pytest.approx(5.2e9, rel=0.01)


def test_sweep_judges_choices(speed, tmp_path):
    sweep = speed.sweep
    parts = []
    for name in ("sinusoids", "sinusoids-width-10"):
        case = sweep.CASES[name]
        ours, peer, *choices = case["contestants"]
        assert len(choices) == 4
        times = (2.0, 3.0, 1.0, 2.0, None, 4.0)
        rows = [
            {"contestant": contestant, "milliseconds": time}
            for contestant, time in zip((ours, peer, *choices), times)
        ]
        parts.append({"settings": case, "rows": rows})
    text = sweep.summarize(parts, tmp_path)
    for varied in ("nothing", "width: 10"):
        assert f"| sinusoids | {varied} | 2 | 3 | 1.50 |" in text
        assert (
            f"| sinusoids | {varied} | 2 | 1 | 2 | failed | 4 "
            "| 2.00 **too slow** |"
        ) in text
    assert (tmp_path / "speed_sinusoids.png").stat().st_size
    # Where contestants are named, each stays in its column.
    del parts[1]["rows"][2]
    text = sweep.summarize(parts, tmp_path)
    assert "| width: 10 | 2 | not tried | 2 | failed | 4 | 1.00 |" in text


def test_names_what_there_is(speed, tmp_path, capsys):
    with pytest.raises(SystemExit):
        arguments_for(speed, tmp_path, "--cases", "nonsense")
    assert "no case 'nonsense'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        arguments_for(speed, tmp_path, "--contestants", "nonsense")
    assert "no contestant 'nonsense'" in capsys.readouterr().err
