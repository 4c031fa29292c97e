from matplotlib import image

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from tests.examples.running import printed_totals
from tests.examples.running import run_example


def test_rl2_tabular_mdps_runs_to_its_end(tmp_path):
    printed = run_example(
        "rl2_tabular_mdps",
        "--steps=2",
        "--short-steps=1",
        "--short-rollouts=2",
        "--meta-batch-size=20",
        "--units=4",
        "--epochs=1",
        output=tmp_path,
    )
    totals = printed_totals(printed)
    # Published for 10 rollouts: 100.1, and 138.1 where posterior sampling has
    # settings of its own.
    assert abs(totals["random"] - 100.1) < 3.0
    assert 128 < totals["posterior sampling"] < 142
    assert totals["knowing the world"] > 200
    # What has learned nothing is as good as chance.
    assert abs(totals["RL^2, sampled"] - 100.1) < 4.0
    assert "RL^2, greedy" in totals
    picture = image.imread(tmp_path / "rl2_mdps_10.png")
    assert picture.shape[0] > 400
