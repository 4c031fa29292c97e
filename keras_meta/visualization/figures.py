def new_figure(width, height):
    """Returns an empty matplotlib figure that no window will ever show.

    Args:
        width: Float, in inches.
        height: Float, in inches.

    Returns:
        A `matplotlib.figure.Figure`, with `savefig()`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. Install it with `pip install "
            "'keras-meta[visualization]'`."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")
