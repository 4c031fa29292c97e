import keras
import numpy as np

from keras_meta.episodes.episode_pictures import draw_episode


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
    batch = next(iter(episodes))
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    answers = np.argmax(keras.ops.convert_to_numpy(model(x))[task], axis=-1)
    figure = draw_episode(batch, task, None, queries, figure, answers)
    right = np.sum(answers == np.asarray(y[task]))
    figure.suptitle(
        f"{right} of {len(answers)} queries right ({right / len(answers):.0%})",
        fontsize=10,
    )
    return figure
