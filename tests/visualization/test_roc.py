import numpy as np
import pytest
from matplotlib.figure import Figure

import keras_meta
from keras_meta import calibration


@pytest.fixture
def result():
    generator = np.random.default_rng(0)
    wanted = np.arange(200) % 2 == 0
    scores = generator.normal(size=200) + 1.5 * wanted
    return calibration.calibrate(scores, wanted, 0.1)


def test_draws_the_curve_and_both_points(result, tmp_path):
    figure = keras_meta.visualization.plot_roc(result)
    assert isinstance(figure, Figure)
    (axis,) = figure.axes
    chance, curve, chosen, equal = (line.get_xydata() for line in axis.lines)
    np.testing.assert_array_equal(chance, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(curve[:, 0], result.false_accept_rates)
    np.testing.assert_array_equal(curve[:, 1], result.true_accept_rates)
    # The threshold is one of the curve's.
    assert np.min(np.abs(curve - chosen).sum(axis=1)) < 1e-9
    assert chosen[0, 0] == pytest.approx(0.1)
    assert equal[0].sum() == pytest.approx(1)
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert any("10.0% false accepts" in text for text in texts)
    figure.savefig(tmp_path / "roc.png")
    assert (tmp_path / "roc.png").stat().st_size > 1000


def test_draws_into_a_given_figure(result):
    whole = Figure()
    left, right = whole.subfigures(1, 2)
    assert keras_meta.visualization.plot_roc(result, figure=left) is left
    assert len(whole.axes) == 1 and not right.axes
