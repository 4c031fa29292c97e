import collections.abc

import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import calibration
from keras_meta import distances
from keras_meta import episode
from keras_meta import normalization
from keras_meta import pair
from keras_meta.algorithms.class_labels import class_shares
from keras_meta.algorithms.embedding_model import concatenate
from keras_meta.algorithms.metric_model import MetricModel

# How many examples are embedded at a time.
_CHUNK = 256


@keras.saving.register_keras_serializable(package="keras_meta")
class SiameseNetwork(MetricModel):
    """A Siamese network: are these two of one class?

    Two branches with one set of weights embed the two examples of a pair, and
    the embeddings are compared: by a distance, or by a learned verdict.

    It takes three kinds of data, and with each of them `fit()`, `evaluate()`
    and `predict()` work as ever:

    - pairs `{"first": [batch, ...], "second": [batch, ...]}`, such as those
      of `keras_meta.episodes.pairs()`: the answers `[batch]` are distances,
      for `keras_meta.losses.ContrastiveLoss`, or with
      `head="verification"` logits of being of one class, for
      `keras.losses.BinaryCrossentropy(from_logits=True)`;
    - episodes: the logits `[tasks, query, ways]` are the mean of minus the
      distance, or of the logit, over the support examples of each class;
    - examples `[batch, ...]`: their embeddings `[batch, size]`, for
      `keras_meta.losses.TripletLoss`.

    Args:
        network: A built `keras.Model` from examples to flat embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()`.
        head: `"distance"` (the default), or `"verification"`: a weighted sum
            of |a - b| over the features of the embeddings a and b, with
            learned weights and bias, is the logit.
        distance: The distance, only for `head="distance"`: `"euclidean"` (the
            default), `"squared_euclidean"`, `"cosine"`, or a function or
            layer `(queries, references)`, such as
            `keras_meta.distances.LearnedDistance`.
        ways: Integer, the ways of every episode. `None` (the default) takes
            them from the labels. XLA is used only where they are given.
        unknown: Boolean. Whether there is one more answer to episodes, "none
            of these", the last logit; see `calibrate_unknown()`. Defaults to
            `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    model = keras_meta.SiameseNetwork(keras_meta.backbones.conv4(filters=16))
    model.compile("adam", loss=keras_meta.losses.ContrastiveLoss())
    model.fit(keras_meta.episodes.pairs(images, labels), steps_per_epoch=2)
    model.calibrate(keras_meta.episodes.pairs(images, labels, pairs=64))
    model.same(images[:3], images[1:4])  # Three booleans.
    ```

    Reference:
        - [Koch et al., 2015](https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf)
        - [Hadsell et al., 2006](https://doi.org/10.1109/CVPR.2006.100)
    """

    _data_name = "data"
    _batch_name = "batch"
    _fixed_list = "a fixed list with `pairs=` or `episodes=`"

    def __init__(
        self,
        network,
        head="distance",
        distance="euclidean",
        ways=None,
        unknown=False,
        **kwargs,
    ):
        super().__init__(network, ways, unknown, **kwargs)
        arguments.check_choice("head", head, ("distance", "verification"))
        self.head = head
        self.distance = distances.get(distance)
        size = self._embedding_size()
        if head == "verification":
            if self.distance is not distances.euclidean:
                raise ValueError(
                    "With head='verification' there is no distance to choose. "
                    f"Received: distance={distance!r}. Leave it out, or use "
                    "head='distance'."
                )
            if size is None:
                raise ValueError(
                    "With head='verification' the network must know the size "
                    "of its embeddings. Received: a network that does not. "
                    "Give it a `keras.Input`."
                )
            self.verification = keras.layers.Dense(
                1, dtype=self.variable_dtype, name="verification"
            )
            self.verification.build((None, size))
        # A weight, so that files and copies of the model have it. NaN is not
        # calibrated yet.
        self.threshold = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(float("nan")),
            trainable=False,
            name="threshold",
        )

    def call(self, x, training=False):
        kind = self._kind(x)
        if kind == "pairs":
            pair.check(x)
            return self._answer_pairs(x, training)
        if kind == "examples":
            return normalization.call_network(self.network, x, training)
        return super().call(x, training)

    def score(self, support, labels, weight, queries, training):
        if self.head == "verification":
            differences = queries[:, :, None] - support[:, None]
            answers = self.verification(tf.abs(differences))[..., 0]
        else:
            answers = -self.distance(queries, support)
        return tf.matmul(answers, class_shares(labels, weight))

    def calibrate(self, pairs, false_accept_rate=0.01):
        """Sets the threshold of `same()` from labeled pairs.

        It is the most generous threshold with which no more than
        `false_accept_rate` of the pairs of different classes are taken to be
        of one class. The pairs should be of classes that the model was not
        trained on, and there should be many: the rate of one percent of 100
        such pairs is a single pair. The threshold is saved with the model.

        Args:
            pairs: A finite `tf.data.Dataset` of labeled pairs, such as
                `keras_meta.episodes.pairs(..., pairs=2000)`. Where they have
                weights, those of weight 0 are left out; others count as 1.
            false_accept_rate: Float from 0 to less than 1. Defaults to
                `0.01`.

        Returns:
            A named tuple: `threshold`, the `false_accept_rate` and
            `false_reject_rate` that were counted with it, the
            `equal_error_rate`, and the curve `false_accept_rates` and
            `true_accept_rates`. The threshold is in the unit of the model's
            answers: a pair is taken to be of one class where its distance is
            below, or its logit above it.

        Raises:
            ValueError, TypeError: Where `pairs` are endless, not labeled or
                all of one kind, or where the rate is out of range.
        """
        if not isinstance(pairs, tf.data.Dataset):
            raise TypeError(
                "`pairs` must be a `tf.data.Dataset` of labeled pairs. "
                f"Received: {type(pairs).__name__}. Make one with "
                "`keras_meta.episodes.pairs()`, or with "
                "`tf.data.Dataset.from_tensors((x, y))`."
            )
        if pairs.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "`pairs` must be finite. Received: an endless data set. Make "
                "a fixed list with `pairs=`."
            )
        answers, wanted = [np.zeros(0)], [np.zeros(0)]
        for batch in pairs:
            x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
            if not pair.is_batch(x) or y is None:
                raise ValueError(
                    "`pairs` must hold `({'first': ..., 'second': ...}, "
                    "labels)`. Received: a data set of something else. Make "
                    "one with `keras_meta.episodes.pairs()`."
                )
            pair.check(x, y, weight)
            counted = np.ravel(
                np.ones(np.shape(y)) if weight is None else weight
            )
            counted = counted > 0
            # Not `predict_on_batch()`: on several replicas each would answer
            # the whole batch.
            answers.append(np.asarray(self(x, training=False))[counted])
            wanted.append(np.ravel(y)[counted])
        # Scores are higher where more should be accepted, distances lower.
        sign = 1.0 if self.head == "verification" else -1.0
        result = calibration.calibrate(
            sign * np.concatenate(answers),
            np.concatenate(wanted) == 1,
            false_accept_rate,
        )
        result = result._replace(threshold=sign * result.threshold)
        self.threshold.assign(result.threshold)
        return result

    def same(self, first, second):
        """Tells whether pairs of examples are of one class.

        Args:
            first: Array `[batch, ...]`, one example of each pair.
            second: Array `[batch, ...]`, the other.

        Returns:
            Boolean array `[batch]`.

        Raises:
            ValueError: Where the threshold was never calibrated, or where
                the shapes of the two differ.
        """
        threshold = self.threshold.numpy()
        if np.isnan(threshold):
            raise ValueError(
                "The model must have a threshold to tell what is the same. "
                "Received: a model that was never calibrated. Call "
                "`calibrate(pairs)` with labeled pairs first."
            )
        x = {
            pair.FIRST: self._examples(first),
            pair.SECOND: self._examples(second),
        }
        answers = self.predict(x, verbose=0)
        if self.head == "verification":
            return answers > threshold
        return answers < threshold

    def task_distance(self, examples, other_examples):
        """Returns how far apart two tasks are, told by examples of them.

        It is the energy distance of the two sets of embeddings X and Y, with
        Euclidean distances d: the root of `2 mean d(x, y) - mean d(x, x') -
        mean d(y, y')`, the means over all pairs. It is 0 for the same set in
        any order, symmetric, and grows with the difference of the two
        distributions, their spread included. Small sets look farther apart
        than they are, so compare distances of sets of similar size.

        Args:
            examples: Array `[examples, ...]`, inputs of one task.
            other_examples: Array `[examples, ...]`, inputs of the other; their
                number may differ.

        Returns:
            Float, 0 or more.

        Raises:
            ValueError: Where there are no examples, where they have another
                shape than the network's input, or where an embedding is not
                finite.

        Reference:
            - [Székely & Rizzo, 2013](https://doi.org/10.1016/j.jspi.2013.03.018)
        """
        return energy_distance(
            self._embed_task("examples", examples),
            self._embed_task("other_examples", other_examples),
        )

    def compute_output_spec(self, x, training=None):
        kind = self._kind(x)
        if kind == "pairs":
            batch = tf.nest.flatten(x)[0].shape[:1]
            return keras.KerasTensor(batch, self.variable_dtype)
        if kind == "examples":
            return self.network.compute_output_spec(x)
        return super().compute_output_spec(x, training)

    def _answer_pairs(self, x, training):
        """Returns the distances or logits of pairs, `[batch]`."""
        # One pass for both: so batch normalization sees both, and it is fast.
        examples = tf.nest.map_structure(
            lambda one, other: concatenate(one, other, axis=0),
            x[pair.FIRST],
            x[pair.SECOND],
        )
        embeddings = normalization.call_network(
            self.network, examples, training
        )
        embeddings = tf.cast(embeddings, self.variable_dtype)
        first, second = tf.split(embeddings, 2)
        if self.head == "verification":
            return self.verification(tf.abs(first - second))[:, 0]
        if self.distance in (distances.euclidean, distances.squared_euclidean):
            # The same by their difference, and without the rounding of
            # products: an example is at distance 0 from itself.
            first, second = first - second, tf.zeros_like(second)
        return self.distance(first[:, None], second[:, None])[:, 0, 0]

    def _embed_task(self, name, examples):
        """Returns the embeddings of examples, float64 `[examples, size]`."""
        examples = self._examples(examples)
        examples = tf.nest.map_structure(tf.convert_to_tensor, examples)
        leaves = tf.nest.flatten(examples)
        inputs = tf.nest.flatten(getattr(self.network, "input", leaves))
        shapes = [tf.TensorShape(leaf.shape[1:]) for leaf in inputs]
        fits = len(leaves) == len(shapes) and all(
            leaf.shape.rank
            and leaf.shape[0]
            and shape.is_compatible_with(leaf.shape[1:])
            for leaf, shape in zip(leaves, shapes)
        )
        if not fits:
            raise ValueError(
                f"`{name}` must be at least one example of the shape of the "
                f"network's input, {', '.join(map(str, shapes))}, with an "
                "axis of examples before it. Received: "
                f"{', '.join(str(leaf.shape) for leaf in leaves)}."
            )
        embeddings = []
        for start in range(0, leaves[0].shape[0], _CHUNK):
            chunk = tf.nest.map_structure(
                lambda leaf: leaf[start : start + _CHUNK], examples
            )
            embeddings.append(self.network(chunk, training=False))
        embeddings = tf.cast(tf.concat(embeddings, axis=0), "float64").numpy()
        if not np.all(np.isfinite(embeddings)):
            raise ValueError(
                "The embeddings of a task must be finite. Received: NaN or "
                f"Inf in what the network makes of `{name}`."
            )
        return embeddings

    def _examples(self, examples):
        """Returns examples as an array where they are a list of numbers."""
        inputs = getattr(self.network, "input", None)
        is_list = isinstance(examples, (list, tuple))
        if is_list and not tf.nest.is_nested(inputs):
            return np.asarray(examples)
        return examples

    def _kind(self, x):
        """Returns what `x` is: "pairs", "episodes" or "examples"."""
        if pair.is_batch(x):
            return "pairs"
        if episode.is_batch(x):
            return "episodes"
        inputs = getattr(self.network, "input", None)
        single = tf.is_tensor(inputs) or isinstance(inputs, keras.KerasTensor)
        if single and tf.nest.is_nested(x):
            is_mapping = isinstance(x, collections.abc.Mapping)
            received = f"keys {sorted(map(str, x))}" if is_mapping else "a list"
            raise ValueError(
                "The input must be pairs, a dictionary with the keys 'first' "
                "and 'second', or episodes, a dictionary with the keys "
                f"{', '.join(map(repr, episode.REQUIRED_KEYS))}, or examples, "
                f"one array. Received: {received}."
            )
        return "examples"

    def _check_given(self, given, labeled):
        x = given.get("x")
        is_array = tf.nest.is_nested(x) or hasattr(x, "shape")
        if not is_array or self._kind(x) == "episodes":
            super()._check_given(given, labeled)
        else:
            self._check_given_examples(given, labeled)

    def _check_batch(self, x, y=None, sample_weight=None):
        kind = self._kind(x)
        if kind == "pairs":
            pair.check(x, y, sample_weight)
        elif kind == "episodes":
            super()._check_batch(x, y, sample_weight)

    def get_config(self):
        return {
            **super().get_config(),
            "head": self.head,
            "distance": distances.serialize(self.distance),
        }


def energy_distance(one, other):
    """Returns the energy distance of two sets of vectors, `[count, size]`."""
    square = (
        2.0 * _mean_distance(one, other)
        - _mean_distance(one, one)
        - _mean_distance(other, other)
    )
    # Not negative, but for rounding.
    return float(np.sqrt(max(square, 0.0)))


def _mean_distance(one, other):
    """Returns the mean Euclidean distance of all pairs, exact for equals."""
    return np.mean(
        [np.mean(np.linalg.norm(other - row, axis=1)) for row in one]
    )
