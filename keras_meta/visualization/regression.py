import keras
import numpy as np

from keras_meta import episode
from keras_meta.figures import figure_for


def plot_regression(model, episodes, tasks=3, steps=(0, 1), figure=None):
    """Draws fits of one-dimensional regression tasks as a model adapts.

    Args:
        model: A `keras_meta.EpisodicModel` for inputs and targets of size 1.
            Where it answers with a mean and a standard deviation, as the
            neural processes do, the 95 % band is drawn, too.
        episodes: A `tf.data.Dataset` of such episodes; the first ones are
            drawn. Many queries make smooth curves.
        tasks: Integer, how many tasks to draw. Defaults to `3`.
        steps: Sequence of integers, after which numbers of inner steps the
            fit is drawn. Defaults to `(0, 1)`: before and after the first.
            A model that adapts without inner steps has one fit, `(0,)`.
        figure: Optional `matplotlib.figure.Figure` or `SubFigure` to draw
            in. `None` (the default) makes one.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ValueError: Where the model takes fewer inner steps than are asked
            for.

    Example:

    ```python
    model = keras_meta.MAML(keras_meta.backbones.mlp(), inner_loss="mse")
    episodes = keras_meta.episodes.sinusoids(queries=100, episodes=3)
    figure = keras_meta.visualization.plot_regression(model, episodes)
    figure.savefig("fits.png")
    ```
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(next(iter(episodes)))
    fits = model.predictions_per_step(x)
    if max(steps) >= len(fits):
        raise ValueError(
            "`steps` must not exceed the inner steps that the model takes. "
            f"Received: steps={tuple(steps)}, but the model takes "
            f"{len(fits) - 1}. Raise `evaluation_steps`."
        )
    tasks = min(tasks, len(y))
    figure = figure_for(figure, 4.0 * tasks, 3.4)
    axes = figure.subplots(1, tasks, squeeze=False)[0]
    colors = [f"C{number}" for number in (9, 1, 0, 2, 4, 5, 6, 8)]
    colors = colors[: len(steps)] + ["C0"] * (len(steps) - len(colors))
    for task, axis in enumerate(axes):
        query_x = np.ravel(x[episode.QUERY_X][task])
        order = np.argsort(query_x)
        axis.plot(
            query_x[order],
            np.ravel(y[task])[order],
            color="0.7",
            linewidth=4,
            label="truth",
        )
        for step, color in zip(steps, colors):
            before = step == 0 and len(fits) > 1
            means, deviations = _means_and_deviations(fits[step][task])
            axis.plot(
                query_x[order],
                means[order],
                color=color,
                linestyle="--" if before else "-",
                label=_label(step, fits, model),
            )
            if deviations is not None:
                axis.fill_between(
                    query_x[order],
                    (means - 1.96 * deviations)[order],
                    (means + 1.96 * deviations)[order],
                    color=color,
                    alpha=0.2,
                    linewidth=0,
                    label="95 % band",
                )
        axis.plot(
            np.ravel(x[episode.SUPPORT_X][task]),
            np.ravel(x[episode.SUPPORT_Y][task]),
            "o",
            color="tab:red",
            markersize=5,
            label="support",
        )
        axis.set_title(f"Task {task + 1}")
        axis.set_xlabel("x")
    axes[0].set_ylabel("y")
    axes[0].legend(fontsize=8, loc="best")
    return figure


def _means_and_deviations(answers):
    """Returns what a model answers to queries, and its deviations if any."""
    answers = np.asarray(answers)
    if answers.ndim == 2 and answers.shape[1] == 2:
        return answers[:, 0], answers[:, 1]
    return np.ravel(answers), None


def _label(step, fits, model):
    if len(fits) == 1:
        return "answer"
    if step == 0:
        return "before adapting"
    if len(fits) - 1 != getattr(model, "evaluation_steps", len(fits) - 1):
        # It does not tell of each step, but of all together.
        return "after adapting"
    return f"after {step} step{'s' * (step != 1)}"
