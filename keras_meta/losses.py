"""Losses that learn a space of examples, and one that learns distributions.

Each is a `keras.losses.Loss`: for `compile()` of any Keras model, or alone.
"""

import math

import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import distances
from keras_meta import metrics

__all__ = ["ContrastiveLoss", "GaussianLikelihood", "TripletLoss"]


@keras.saving.register_keras_serializable(package="keras_meta")
class ContrastiveLoss(keras.losses.Loss):
    """Draws pairs of one class together and pushes other pairs apart.

    For a pair at distance d the loss is `d**2` where both are of one class,
    and `max(0, margin - d)**2` where they are not: these count until they are
    `margin` apart. (The paper has half of both.)

    In a call, `y_true` is `[batch]` or `[batch, 1]`, 1 for pairs of one class
    and 0 for others, and `y_pred` the distances, of either of these shapes.

    Args:
        margin: Float above 0, the distance from which on pairs of different
            classes are left alone. Defaults to `1.0`.
        reduction: As in every Keras loss. Defaults to
            `"sum_over_batch_size"`, the mean over the batch.
        name: String. Defaults to `"contrastive_loss"`.

    Raises:
        ValueError: Where the margin is not above 0.

    Example:

    ```python
    loss = keras_meta.losses.ContrastiveLoss(margin=1.0)
    float(loss([1, 0, 0], [0.5, 0.5, 2.0]))  # (0.25 + 0.25 + 0) / 3
    ```

    Reference:
        - [Hadsell et al., 2006](https://doi.org/10.1109/CVPR.2006.100)
    """

    def __init__(
        self,
        margin=1.0,
        reduction="sum_over_batch_size",
        name="contrastive_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        arguments.check_positive_number("margin", margin)
        self.margin = margin

    def call(self, y_true, y_pred):
        y_pred = _column("y_pred", "distances", y_pred)
        same = tf.cast(_column("y_true", "labels", y_true), y_pred.dtype)
        _check_same_length(same, y_pred)
        missing = tf.maximum(self.margin - y_pred, 0.0)
        return same * tf.square(y_pred) + (1.0 - same) * tf.square(missing)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="keras_meta")
class GaussianLikelihood(keras.losses.Loss):
    """Minus the logarithm of a normal density, for answers with a spread.

    With it a network learns how wrong it is: a large standard deviation makes
    a large error cheap, and a small error dear.

    In a call, `y_true` is `[..., size]`, the targets, and `y_pred`
    `[..., 2 * size]`: the means, and then the standard deviations, all above
    0. The value of an example is `0.5 * ((y - mean) / deviation)**2 +
    log(deviation) + 0.5 * log(2 * pi)`, summed over the parts of its target,
    which are independent; in nats.

    Args:
        reduction: As in every Keras loss. Defaults to
            `"sum_over_batch_size"`, the mean over the batch.
        name: String. Defaults to `"gaussian_likelihood"`.

    Raises:
        ValueError: In a call, where there are not two numbers for each target.

    Example:

    ```python
    loss = keras_meta.losses.GaussianLikelihood()
    float(loss([[1.0]], [[1.0, 0.5]]))  # log(0.5) + 0.919 = 0.226
    ```

    Reference:
        - [Nix & Weigend, 1994](https://doi.org/10.1109/ICNN.1994.374138)
    """

    def __init__(
        self, reduction="sum_over_batch_size", name="gaussian_likelihood"
    ):
        super().__init__(name=name, reduction=reduction)

    def call(self, y_true, y_pred):
        mean, deviation = metrics.split_gaussian(y_true, y_pred)
        error = (tf.cast(y_true, mean.dtype) - mean) / deviation
        logarithm = tf.math.log(deviation) + 0.5 * math.log(2.0 * math.pi)
        return tf.reduce_sum(0.5 * tf.square(error) + logarithm, axis=-1)


@keras.saving.register_keras_serializable(package="keras_meta")
class TripletLoss(keras.losses.Loss):
    """Puts every example nearer to its own class than to the others.

    A triplet is an example (the anchor), another of its class (the positive)
    and one of another class (the negative); its loss is
    `max(0, d(anchor, positive) - d(anchor, negative) + margin)`. The triplets
    are found within the batch, so that any Keras model of embeddings trains
    with `fit(images, labels)`. A batch must hold several examples of a class
    for that: large batches, or few classes in each.

    In a call, `y_true` is `[batch]` or `[batch, 1]`, the class of each
    example (up to 2**24: Keras turns labels into float32), and `y_pred` the
    embeddings, `[batch, size]`. The value of an example is that of the
    triplets it is the anchor of, scaled so that the mean over the batch is
    the mean over the triplets that were used. A batch without a triplet gives
    0. With `tf.distribute`, triplets are found within each replica's part.

    Args:
        margin: Float above 0, how much nearer. Defaults to `1.0`; for
            embeddings of length 1, 0.2 is usual.
        mining: Which triplets are used.
            `"semi_hard"` (the default): for each pair of anchor and positive
            the nearest negative that is farther than the positive, or the
            farthest negative where none is.
            `"hard"`: for each anchor the farthest positive and the nearest
            negative.
            `"all"`: all triplets, which takes memory for batch**3 numbers.
        distance: `"euclidean"` (the default), `"squared_euclidean"`,
            `"cosine"`, or a function `(queries, references)` such as those
            of `keras_meta.distances`. A layer with weights is refused: a
            model trains and saves its own weights, and none of its loss.
        reduction: As in every Keras loss. Defaults to
            `"sum_over_batch_size"`, the mean over the batch.
        name: String. Defaults to `"triplet_loss"`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    images = np.random.uniform(size=(64, 28, 28, 1)).astype("float32")
    labels = np.arange(64) % 8
    network = keras_meta.backbones.conv4(filters=8)
    network.compile("adam", loss=keras_meta.losses.TripletLoss())
    network.fit(images, labels)
    ```

    Reference:
        - [Schroff et al., 2015](https://arxiv.org/abs/1503.03832), semi-hard
        - [Hermans et al., 2017](https://arxiv.org/abs/1703.07737), hard, all
    """

    def __init__(
        self,
        margin=1.0,
        mining="semi_hard",
        distance="euclidean",
        reduction="sum_over_batch_size",
        name="triplet_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        arguments.check_positive_number("margin", margin)
        arguments.check_choice("mining", mining, ("semi_hard", "hard", "all"))
        self.margin = margin
        self.mining = mining
        self.distance = distances.get(distance)
        self._check_distance()

    def call(self, y_true, y_pred):
        embeddings = _precise(y_pred)
        if embeddings.shape.rank != 2:
            raise ValueError(
                "The predictions must be embeddings `[batch, size]`. "
                f"Received: y_pred of shape {embeddings.shape}. Flatten what "
                "the network gives."
            )
        labels = _column("y_true", "labels", y_true)
        _check_same_length(labels, embeddings)
        of_pairs = self.distance(embeddings, embeddings)
        # A layer may make its weights at its first call.
        self._check_distance()
        same = labels[:, None] == labels[None, :]
        itself = tf.eye(tf.shape(labels)[0], dtype="bool")
        positive = tf.cast(same & ~itself, of_pairs.dtype)
        losses, counts = {
            "semi_hard": _semi_hard,
            "hard": _hard,
            "all": _all,
        }[self.mining](of_pairs, positive, ~same, self.margin)
        # The mean over the batch is then the mean over the triplets.
        batch = tf.cast(tf.shape(labels)[0], losses.dtype)
        return losses * tf.math.divide_no_nan(batch, tf.reduce_sum(counts))

    def _check_distance(self):
        if getattr(self.distance, "weights", None):
            raise ValueError(
                "`distance` must have no weights: a model trains and saves "
                "its own, and none of its loss. Received: "
                f"distance={self.distance!r}. Take a function, and put what "
                "is to be learned into the network."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "mining": self.mining,
            "distance": distances.serialize(self.distance),
        }


# Each of these takes the distances of all pairs `[batch, batch]`, which of
# them are of an anchor and its positive (1.0 or 0.0), and which of an anchor
# and its negative (booleans), and returns for each anchor the sum of the
# losses of its triplets, and their number.


def _semi_hard(of_pairs, positive, negative, margin):
    negatives = tf.reduce_sum(tf.cast(negative, "int32"), axis=1)
    to_negatives = tf.where(negative, of_pairs, float("inf"))
    ordered = tf.sort(to_negatives, axis=1)
    # Where the positive would stand among the negatives, the next of them is
    # the nearest that is farther; behind the last one, it is the last.
    places = tf.searchsorted(ordered, of_pairs, side="right")
    places = tf.clip_by_value(places, 0, tf.maximum(negatives - 1, 0)[:, None])
    chosen = tf.gather(ordered, places, batch_dims=1)
    used = positive * tf.cast(negatives > 0, positive.dtype)[:, None]
    return _sums(of_pairs, chosen, used, margin)


def _hard(of_pairs, positive, negative, margin):
    farthest = tf.reduce_max(
        tf.where(positive > 0, of_pairs, -float("inf")), axis=1
    )
    nearest = tf.reduce_min(tf.where(negative, of_pairs, float("inf")), axis=1)
    used = tf.reduce_any(positive > 0, axis=1) & tf.reduce_any(negative, axis=1)
    used = tf.cast(used, of_pairs.dtype)
    return _sums(farthest[:, None], nearest[:, None], used[:, None], margin)


def _all(of_pairs, positive, negative, margin):
    used = positive[:, :, None] * tf.cast(negative, positive.dtype)[:, None, :]
    return _sums(of_pairs[:, :, None], of_pairs[:, None, :], used, margin)


def _sums(to_positive, to_negative, used, margin):
    # Infinite where there is no triplet: left out before anything is computed
    # with it, or its gradient would be NaN.
    to_positive = tf.where(used > 0, to_positive, 0.0)
    to_negative = tf.where(used > 0, to_negative, 0.0)
    losses = used * tf.maximum(to_positive - to_negative + margin, 0.0)
    axes = list(range(1, len(losses.shape)))
    return tf.reduce_sum(losses, axes), tf.reduce_sum(used, axes)


def _precise(values):
    """Returns a tensor of floats, of no less than 32 bits."""
    values = tf.convert_to_tensor(values)
    if not values.dtype.is_floating or values.dtype.size < 4:
        values = tf.cast(values, "float32")
    return values


def _column(name, what, values):
    """Returns `[batch]` or `[batch, 1]` as floats `[batch]`."""
    values = _precise(values)
    if values.shape.rank == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape.rank != 1:
        raise ValueError(
            f"The {what} must have the shape `[batch]` or `[batch, 1]`. "
            f"Received: {name} of shape {values.shape}."
        )
    return values


def _check_same_length(y_true, y_pred):
    # TensorFlow would spread one over all the others.
    if not y_true.shape[:1].is_compatible_with(y_pred.shape[:1]):
        raise ValueError(
            "There must be a label for each prediction. Received: "
            f"{y_true.shape[0]} labels for {y_pred.shape[0]} predictions."
        )
