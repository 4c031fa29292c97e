import keras
import numpy as np

from keras_meta import episode
from keras_meta.visualization.figures import figure_for


def plot_episode(model, episodes, task=0, queries=8, figure=None):
    """Draws an image classification episode, and what a model answers.

    A row for each way: its support images, then queries of that class, in a
    green frame where the model is right and in a red one, with the way it
    took the image for, where it is wrong.

    Args:
        model: A `keras_meta.EpisodicModel`, or any function from `x` to
            logits `[tasks, query, ways]`.
        episodes: A `tf.data.Dataset` of episodes of images; one of the first
            meta-batch is drawn.
        task: Integer, which episode of the meta-batch. Defaults to `0`.
        queries: Integer, how many queries of each class to draw at most.
            Defaults to `8`.
        figure: Optional `matplotlib.figure.Figure` or `SubFigure` to draw
            in. `None` (the default) makes one.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Example:

    ```python
    figure = keras_meta.visualization.plot_episode(model, episodes)
    figure.savefig("episode.png")
    ```
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(next(iter(episodes)))
    answers = np.argmax(keras.ops.convert_to_numpy(model(x))[task], axis=-1)
    support_y = np.asarray(x[episode.SUPPORT_Y][task])
    query_y = np.asarray(y[task])
    ways = np.unique(np.concatenate([support_y, query_y]))
    shots = max(int(np.sum(support_y == way)) for way in ways)
    queries = min(queries, max(int(np.sum(query_y == way)) for way in ways))

    columns = shots + queries + 1
    figure = figure_for(figure, 0.8 * columns, 0.95 * len(ways) + 0.6)
    axes = figure.subplots(len(ways), columns, squeeze=False)
    for axis in np.ravel(axes):
        axis.axis("off")
    for way, row in zip(ways, axes):
        row[0].text(0.5, 0.5, f"{way}", ha="center", va="center", fontsize=16)
        places = np.flatnonzero(support_y == way)
        for axis, place in zip(row[1:], places):
            _draw(axis, x[episode.SUPPORT_X][task][place], "0.4")
        places = np.flatnonzero(query_y == way)[:queries]
        for axis, place in zip(row[1 + shots :], places):
            right = answers[place] == way
            _draw(
                axis,
                x[episode.QUERY_X][task][place],
                "tab:green" if right else "tab:red",
                "" if right else f"took for {answers[place]}",
            )
    axes[0][0].set_title("way", fontsize=9)
    axes[0][1].set_title("support", fontsize=9)
    axes[0][1 + shots].set_title("queries", fontsize=9, loc="left")
    accuracy = np.mean(answers == query_y)
    figure.suptitle(
        f"{np.sum(answers == query_y)} of {len(query_y)} queries right "
        f"({accuracy:.0%}), {queries * len(ways)} drawn",
        fontsize=10,
    )
    return figure


def _draw(axis, image, color, caption=""):
    image = np.asarray(image)
    axis.axis("on")
    axis.imshow(np.squeeze(image), cmap="gray")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(caption, fontsize=6, color=color, labelpad=1)
    for spine in axis.spines.values():
        spine.set_color(color)
        spine.set_linewidth(2.5)
