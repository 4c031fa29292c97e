import functools
import pathlib

import numpy as np
import pytest
from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import printed_totals
from tests.examples.running import run_example


def test_rl2_bandits_runs_to_its_end(tmp_path):
    printed = run_example(
        "rl2_bandits",
        "--steps=2",
        "--short-steps=1",
        "--short-pulls=3",
        "--meta-batch-size=20",
        "--units=4",
        "--epochs=1",
        "--test-bandits=400",
        output=tmp_path,
    )
    totals = printed_totals(printed)
    # The published figures of the classical methods, for 10 pulls of 5 arms.
    assert abs(totals["random"] - 5.0) < 0.35
    assert abs(totals["Thompson sampling"] - 5.8) < 0.4
    assert abs(totals["UCB1"] - 6.7) < 0.4
    assert abs(totals["Gittins"] - 6.6) < 0.4
    assert abs(totals["the best"] - 6.66) < 0.4
    assert {"RL^2, sampled", "RL^2, greedy"} <= set(totals)
    picture = image.imread(tmp_path / "rl2_bandits_10_5.png")
    assert picture.shape[0] > 400


def part_of_the_example(begin, end):
    """Returns the names that a part of the example defines."""
    root = pathlib.Path(__file__).parents[2]
    source = (root / "examples" / "rl2_bandits.py").read_text()
    names = {"functools": functools, "np": np}
    exec(source[source.index(begin) : source.index(end)], names)
    return names


def test_the_gittins_index_is_the_published_one():
    names = part_of_the_example("def gittins_indices", "def play(")
    indices = names["gittins_indices"](3, discount=0.9, horizon=200)
    # Gittins (1989), table of the Bernoulli reward process, discount 0.9.
    assert abs(indices[0, 0] - 0.7029) < 0.003
    assert abs(indices[1, 0] - 0.8001) < 0.003
    assert abs(indices[0, 1] - 0.5001) < 0.003


def test_the_best_play_is_that_by_hand():
    names = part_of_the_example("@functools.cache", "def best_play")
    nothing = (0, 0)
    # A single arm has nothing to find out.
    assert names["best_value"]((nothing,), 4) == pytest.approx(2.0)
    # Two arms: after a gain the same one pays 2 / 3, after a loss the other
    # 1 / 2.
    by_hand = 1 / 2 + 1 / 2 * 2 / 3 + 1 / 2 * 1 / 2
    assert names["best_value"]((nothing, nothing), 2) == pytest.approx(by_hand)
