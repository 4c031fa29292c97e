import textwrap

import keras
import numpy as np
import tensorflow as tf

from keras_meta import episode
from keras_meta.figures import figure_for

# The width of a column, in inches, of pictures and of text.
_PICTURE, _TEXT = 0.8, 1.3

# Letters of a line, and lines, that fit in a frame of text.
_LETTERS, _LINES = 15, 6


def draw_episode(batch, task, shots, queries, figure, answers=None):
    """Draws an episode of classification, a row for each way.

    Args:
        batch: A meta-batch, `(x, y)` or `(x, y, sample_weight)`.
        task: Integer, which episode of it.
        shots: Integer, how many support examples of each class to draw at
            most, or `None`: all.
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
    support = _places(support_y, support_weight, task, ways, shots)
    asked = _places(query_y, query_weight, task, ways, queries)
    shots, queries = max(map(len, support)), max(map(len, asked))

    columns = shots + queries + 1
    width = _PICTURE if _text_of(support_x[0]) is None else _TEXT
    figure = figure_for(figure, width * columns, 0.95 * len(ways) + 0.6)
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
    text = _text_of(example)
    if text is not None:
        axis.text(
            0.5,
            0.5,
            _wrapped(text),
            ha="center",
            va="center",
            fontsize=7,
            linespacing=1.1,
            clip_on=True,
            # A dollar is no formula here.
            parse_math=False,
        )
    elif example.ndim == 2 or (
        example.ndim == 3 and example.shape[2] in (1, 3, 4)
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


def _text_of(example):
    """Returns what to write for text and numbers of tokens, else `None`."""
    example = np.asarray(example)
    if example.dtype.kind in "SUO":
        return " ".join(
            one.decode("utf-8", "replace") if isinstance(one, bytes) else one
            for one in np.ravel(example).tolist()
        )
    if example.dtype.kind in "iu" and example.ndim < 2:
        return " ".join(map(str, np.ravel(example).tolist()))
    return None


def _wrapped(text):
    return "\n".join(
        textwrap.wrap(text, _LETTERS, max_lines=_LINES, placeholder="...")
    )
