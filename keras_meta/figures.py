def figure_for(figure, width, height):
    """Returns what to draw in: `figure`, or a new one if that is `None`.

    A new one belongs to no window and to no global state of matplotlib.

    Args:
        figure: A `matplotlib.figure.Figure` or `SubFigure`, or `None`.
        width: Float, of a new one, in inches.
        height: Float, of a new one, in inches.

    Returns:
        A `matplotlib.figure.Figure` or `SubFigure`.
    """
    if figure is not None:
        return figure
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. Install it with "
            "`pip install 'keras-meta[visualization]'`."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")
