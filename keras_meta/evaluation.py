import collections
import functools
import statistics

import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta.episodes.protocols import protocol_of


class EpisodeEvaluation(
    collections.namedtuple(
        "EpisodeEvaluation",
        [
            "metric",
            "mean",
            "interval",
            "count",
            "values",
            "steps",
            "protocol",
        ],
    )
):
    """What `keras_meta.evaluate_episodes()` measured.

    Attributes:
        metric: String, the name of the metric.
        mean: Float, the mean over the episodes.
        interval: Float, half the width of the 95 % confidence interval of
            the mean: it reaches from `mean - interval` to `mean + interval`.
        count: Integer, the number of episodes.
        values: Array `[episodes]`, the metric of each episode.
        steps: List of `(mean, interval)` after 0, 1, ... inner steps, or
            after what `predictions_per_step()` of the model gives. The last
            is `(mean, interval)`.
        protocol: String, what it was measured on: the source of the episodes,
            the classes, ways, shots, queries and seed, and which statistics
            batch normalization used.
    """

    __slots__ = ()

    def __str__(self):
        return (
            f"{self.metric} {self.mean:.4f} ± {self.interval:.4f} "
            f"(95 % interval over {self.count} episodes)\n"
            f"on {self.protocol}"
        )


def evaluate_episodes(model, episodes, metric=None, steps=None):
    """Measures how well a model adapts to episodes, with an interval.

    The mean and the interval are taken over the episodes, one value each:
    the queries of one episode share its support set and are not independent.

    Args:
        model: A `keras_meta.EpisodicModel`, or any function from a
            meta-batch `x` to predictions `[tasks, query, ...]`, for a
            baseline on the same episodes.
        episodes: A finite `tf.data.Dataset` of `(x, y)` or `(x, y,
            sample_weight)`, such as one made with `episodes=600`.
        metric: A function `(y_true, y_pred)` that returns a value per query,
            or the name of one in `keras.metrics`. `None` means what the model
            says (a neural process: the squared error of its means), or
            `"sparse_categorical_accuracy"` (reported as `accuracy`) where
            the labels are integers and `"mean_squared_error"` elsewhere.
        steps: Integer, the number of meta-batches to use; `None` (the
            default) means all.

    Returns:
        An `EpisodeEvaluation`, with the attributes `metric`, `mean`,
        `interval` (half the width of the 95 % interval), `count`, `values`,
        `steps`, the mean and interval after each inner step, and `protocol`,
        which is printed with it.

    Raises:
        ValueError: Where the episodes are endless or there are none, or
            where the model's answers are not finite.

    Example:

    ```python
    model = keras_meta.MAML(keras_meta.backbones.mlp(), inner_loss="mse")
    episodes = keras_meta.episodes.sinusoids(
        shots=10, queries=10, meta_batch_size=25, episodes=100
    )
    result = keras_meta.evaluate_episodes(model, episodes)
    print(result)
    ```
    """
    if not isinstance(episodes, tf.data.Dataset):
        raise TypeError(
            "`episodes` must be a `tf.data.Dataset` of meta-batches. Received: "
            f"{type(episodes).__name__}. Make one with a function of "
            "`keras_meta.episodes`, or with "
            "`tf.data.Dataset.from_tensors((x, y))`."
        )
    protocol = _protocol(model, episodes)
    if steps is not None:
        arguments.check_positive_integer("steps", steps)
        episodes = episodes.take(steps)
    if episodes.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "`episodes` must be finite. Received: an endless data set and "
            "steps=None. Make a fixed list with `episodes=600`, or pass "
            "`steps=`."
        )
    predict = getattr(model, "predictions_per_step", None)
    if predict is None:
        predict = lambda x: [model(x)]  # noqa: E731
    else:
        # TensorFlow counts the traces of a method over all models together,
        # and would warn of the first of each one; a partial is a new function.
        predict = tf.function(
            functools.partial(predict), autograph=False, reduce_retracing=True
        )
    name, function = None, None
    values = []
    for batch in episodes:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if function is None:
            if hasattr(model, "_check_batch"):
                model._check_batch(x, y, sample_weight)
            if y is None:
                raise ValueError(
                    "`episodes` must hold the labels of the queries, `(x, "
                    "y)`. Received: a data set of `x` alone."
                )
            name, function = _resolve_metric(metric, y, model)
        values.append(
            np.stack(
                [
                    _per_episode(function, y, predictions, sample_weight)
                    for predictions in predict(x)
                ]
            )
        )
    values = np.concatenate(values, axis=1) if values else np.zeros((1, 0))
    if not values.size:
        raise ValueError(
            "`episodes` must hold at least one episode. Received: an empty "
            "data set."
        )
    steps = [mean_and_interval(step) for step in values]
    return EpisodeEvaluation(
        name, *steps[-1], values.shape[1], values[-1], steps, protocol
    )


def _protocol(model, episodes):
    statistics = getattr(model, "normalization_statistics", None)
    if statistics is None:
        return protocol_of(episodes)
    return f"{protocol_of(episodes)}, normalization statistics: {statistics}"


def _resolve_metric(metric, labels, model):
    if tf.nest.is_nested(labels):
        raise ValueError(
            "The model must have a single output to be measured. Received: "
            f"labels for {len(tf.nest.flatten(labels))} outputs. Use "
            "`model.evaluate()`."
        )
    if metric is None:
        # A model whose answers are no targets knows what to make of them.
        metric = getattr(model, "default_metric", None)
    if metric is None:
        integer = tf.as_dtype(labels.dtype).is_integer
        if integer and getattr(model, "task_loss", None) is not None:
            # Integers may be targets of a regression.
            integer = model.takes_integer_labels
        metric = (
            "sparse_categorical_accuracy" if integer else "mean_squared_error"
        )
    if isinstance(metric, str):
        function = getattr(keras.metrics, metric, None)
        if function is None or isinstance(function, type):
            raise ValueError(
                "`metric` must be a function or the name of a function in "
                f"`keras.metrics`. Received: metric={metric!r}. Use for "
                "example 'sparse_categorical_accuracy'."
            )
        name = metric
    elif callable(metric) and not isinstance(metric, type):
        function = metric
        name = getattr(metric, "__name__", type(metric).__name__)
    else:
        raise ValueError(
            "`metric` must be a function or the name of a function in "
            f"`keras.metrics`. Received: metric={metric!r}."
        )
    return name.replace("sparse_categorical_accuracy", "accuracy"), function


def _per_episode(function, labels, predictions, sample_weight):
    _check_fit(labels, predictions, sample_weight)
    if not np.all(np.isfinite(predictions)):
        raise ValueError(
            "The predictions must be finite to be measured. Received: NaN or "
            "Inf in the model's answers. Lower the inner learning rate or "
            "the number of inner steps."
        )
    values = np.asarray(function(labels, predictions), dtype="float64")
    if values.ndim < 2:
        raise ValueError(
            "`metric` must return a value per query, `[tasks, query]`. "
            f"Received: a metric that returns shape {values.shape}. Leave "
            "the means to `evaluate_episodes`."
        )
    values = values.mean(axis=tuple(range(2, values.ndim)))
    if sample_weight is None:
        return values.mean(axis=1)
    weights = np.asarray(sample_weight)
    if not np.all(weights.sum(axis=1)):
        raise ValueError(
            "Each episode must have a query whose weight is not 0. Received: "
            "an episode whose sample_weight is 0 throughout."
        )
    return np.average(values, axis=1, weights=weights)


def _check_fit(labels, predictions, sample_weight):
    """Refuses what NumPy would spread over the tasks or the queries."""
    parts = {
        "predictions": predictions,
        "labels": labels,
        "sample_weight": sample_weight,
    }
    shapes = {
        name: [tuple(leaf.shape[:2]) for leaf in tf.nest.flatten(part)]
        for name, part in parts.items()
        if part is not None
    }
    if len(set(sum(shapes.values(), []))) > 1:
        raise ValueError(
            "The predictions, labels and weights must have the same number "
            "of tasks and of queries (their first two axes). Received: "
            f"{shapes}."
        )


def mean_and_interval(values):
    """Returns the mean of values, and half the width of its 95 % interval.

    Args:
        values: Array `[count]`.

    Returns:
        A tuple of floats; the second is NaN where there is one value.
    """
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    quantile = statistics.NormalDist().inv_cdf(0.975)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(quantile * error)
