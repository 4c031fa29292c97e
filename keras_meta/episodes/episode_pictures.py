import keras
import numpy as np
import tensorflow as tf

from keras_meta import episode
from keras_meta.figures import figure_for


def draw_episode(batch, task, queries, figure, answers=None):
    """Draws an episode of classification, a row for each way.

    Args:
        batch: A meta-batch, `(x, y)` or `(x, y, sample_weight)`.
        task: Integer, which episode of it.
        queries: Integer, how many queries of each class to draw at most.
        figure: A `matplotlib.figure.Figure` or `SubFigure` to draw in, or
            `None`.
        answers: Optional integers `[query]`, the ways that a model took the
            queries for.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    x, y, query_weight = keras.utils.unpack_x_y_sample_weight(batch)
    support_weight = x.get(episode.SUPPORT_WEIGHT)
    # Of several inputs the first is drawn.
    support_x, query_x = (
        np.asarray(tf.nest.flatten(x[key])[0][task])
        for key in (episode.SUPPORT_X, episode.QUERY_X)
    )
    support_y, query_y = (
        np.asarray(x[episode.SUPPORT_Y][task]),
        np.asarray(y[task]),
    )
    ways = np.unique(np.concatenate([support_y, query_y]))
    support = _places(support_y, support_weight, task, ways, None)
    asked = _places(query_y, query_weight, task, ways, queries)
    shots, queries = max(map(len, support)), max(map(len, asked))

    columns = shots + queries + 1
    figure = figure_for(figure, 0.8 * columns, 0.95 * len(ways) + 0.6)
    axes = figure.subplots(len(ways), columns, squeeze=False)
    for axis in np.ravel(axes):
        axis.axis("off")
    for way, row, shown, hidden in zip(ways, axes, support, asked):
        row[0].text(0.5, 0.5, f"{way}", ha="center", va="center", fontsize=16)
        for axis, place in zip(row[1:], shown):
            _draw(axis, support_x[place], "0.4")
        for axis, place in zip(row[1 + shots :], hidden):
            color, caption = "tab:blue", ""
            if answers is not None:
                right = answers[place] == way
                color = "tab:green" if right else "tab:red"
                caption = "" if right else f"took for {answers[place]}"
            _draw(axis, query_x[place], color, caption)
    axes[0][0].set_title("way", fontsize=9)
    axes[0][1].set_title("support", fontsize=9)
    axes[0][1 + shots].set_title("queries", fontsize=9, loc="left")
    return figure


def _places(labels, weight, task, ways, most):
    """Returns where the examples of each way are, without what is padded."""
    real = np.ones(len(labels)) if weight is None else np.asarray(weight[task])
    return [
        np.flatnonzero((labels == way) & (real != 0))[:most] for way in ways
    ]


def _draw(axis, example, color, caption=""):
    example = np.asarray(example)
    axis.axis("on")
    if example.dtype.kind in "SO":
        text = example.item() if example.ndim == 0 else example.ravel()[0]
        axis.text(
            0.5, 0.5, _shortened(text), ha="center", va="center", fontsize=5
        )
    elif example.ndim == 2 or (
        example.ndim == 3 and example.shape[2] in (1, 3)
    ):
        axis.imshow(np.squeeze(example), cmap="gray")
    else:
        axis.plot(np.ravel(example), color="0.2", linewidth=1)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(caption, fontsize=6, color=color, labelpad=1)
    for spine in axis.spines.values():
        spine.set_color(color)
        spine.set_linewidth(2.5)


def _shortened(text, width=12, lines=4):
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    pieces = [text[at : at + width] for at in range(0, len(text), width)]
    return "\n".join(pieces[:lines]) + ("..." if len(pieces) > lines else "")
