from keras_meta.figures import figure_for


def plot_roc(calibration, figure=None):
    """Draws the receiver operating characteristic of a verification.

    It shows for every threshold which share of what should be accepted is,
    and which share of what should be refused. Marked are the threshold that
    was chosen, and the point where both errors are equal.

    Args:
        calibration: What `keras_meta.SiameseNetwork.calibrate()` or
            `calibrate_unknown()` returned.
        figure: Optional `matplotlib.figure.Figure` or `SubFigure` to draw
            in. `None` (the default) makes one.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Example:

    ```python
    images = np.random.uniform(size=(60, 8, 8, 1)).astype("float32")
    pairs = keras_meta.episodes.pairs(images, np.arange(60) % 6, pairs=100)
    model = keras_meta.SiameseNetwork(network)
    figure = keras_meta.visualization.plot_roc(model.calibrate(pairs))
    figure.savefig("roc.png")
    ```
    """
    figure = figure_for(figure, 4.6, 4.4)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="chance")
    axis.plot(
        calibration.false_accept_rates,
        calibration.true_accept_rates,
        color="C0",
        label="every threshold",
    )
    axis.plot(
        calibration.false_accept_rate,
        1 - calibration.false_reject_rate,
        "o",
        color="tab:red",
        label=f"threshold {calibration.threshold:.3g}: "
        f"{calibration.false_accept_rate:.1%} false accepts,\n"
        f"{calibration.false_reject_rate:.1%} false rejects",
    )
    axis.plot(
        calibration.equal_error_rate,
        1 - calibration.equal_error_rate,
        "x",
        color="0.2",
        label=f"equal error rate {calibration.equal_error_rate:.1%}",
    )
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_aspect("equal")
    axis.set_xlabel("false accepts")
    axis.set_ylabel("true accepts")
    axis.legend(fontsize=8, loc="lower right")
    return figure
