import pathlib

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
    assert {"RL^2, sampled", "RL^2, greedy"} <= set(totals)
    picture = image.imread(tmp_path / "rl2_bandits_10_5.png")
    assert picture.shape[0] > 400


def test_the_gittins_index_is_the_published_one():
    root = pathlib.Path(__file__).parents[2]
    source = (root / "examples" / "rl2_bandits.py").read_text()
    start = source.index("def gittins_indices")
    namespace = {}
    code = source[start : source.index("def play(")]
    exec("import numpy as np\n" + code, namespace)
    indices = namespace["gittins_indices"](3, discount=0.9, horizon=200)
    # Gittins (1989), table of the Bernoulli reward process, discount 0.9.
    assert abs(indices[0, 0] - 0.7029) < 0.003
    assert abs(indices[1, 0] - 0.8001) < 0.003
    assert abs(indices[0, 1] - 0.5001) < 0.003
