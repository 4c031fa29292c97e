import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import calibration
from keras_meta.algorithms import class_labels
from keras_meta.algorithms.embedding_model import EmbeddingModel


class MetricModel(EmbeddingModel):
    """An episodic model that compares the embeddings of examples.

    What it adds is the answer "none of these": a logit is a measure of
    nearness, so that a query may be too far from everything.

    Args:
        network: A built `keras.Model` from examples to embeddings.
        ways: Integer, the ways of every episode, or `None` (the default); see
            `EmbeddingModel`.
        unknown: Boolean. Whether there is one more answer, "none of these",
            the last logit; see `calibrate_unknown()`. Defaults to `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    def __init__(self, network, ways=None, unknown=False, **kwargs):
        super().__init__(network, ways, **kwargs)
        arguments.check_choice("unknown", unknown, (True, False))
        self.unknown = unknown
        if unknown:
            # A weight, so that every file and copy of the model has it. Until
            # it is calibrated it never wins.
            self.unknown_threshold = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(class_labels.ABSENT),
                trainable=False,
                autocast=False,
                name="unknown_threshold",
            )

    def _complete(self, scores, present):
        answers = super()._complete(scores, present)
        if not self.unknown:
            return answers
        none = tf.zeros_like(answers[..., :1]) + self.unknown_threshold
        return tf.concat([answers, none], axis=-1)

    def calibrate_unknown(self, episodes, false_accept_rate=0.05):
        """Sets the logit of "none of these" from labeled episodes.

        Where no class of a support set has a higher logit, the answer is
        "none of these", the last column. The threshold is the lowest with
        which no more than `false_accept_rate` of the unknown queries are
        taken for a class. A query becomes an unknown one by leaving its own
        class out of the support set; so the episodes are ordinary ones. They
        should be of classes that the model was not trained on, with the shots
        that are used later. Queries that are labeled "none of these" (the
        number of ways) are counted as they are.

        An unknown query so has one class less to be taken for than the
        episode has. Where it matters, calibrate with one way more than are
        used later.

        Args:
            episodes: A finite `tf.data.Dataset` of `(x, y)` or `(x, y,
                sample_weight)`.
            false_accept_rate: Float from 0 to less than 1. Defaults to
                `0.05`.

        Returns:
            A named tuple: `threshold`, the `false_accept_rate` and
            `false_reject_rate` that were counted with it, the
            `equal_error_rate`, and the curve `false_accept_rates` and
            `true_accept_rates`.

        Raises:
            ValueError, TypeError: Where the model was made without
                `unknown=True`, where the episodes are endless, without
                labels or without two classes, or where the rate is out of
                range.
        """
        if not self.unknown:
            raise ValueError(
                'To know "none of these", a model must be a classifier that '
                "is made with `unknown=True`. Received: unknown=False."
            )
        if not isinstance(episodes, tf.data.Dataset):
            raise TypeError(
                "`episodes` must be a `tf.data.Dataset` of meta-batches. "
                f"Received: {type(episodes).__name__}."
            )
        if episodes.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "`episodes` must be finite. Received: an endless data set. "
                "Make a fixed list with `episodes=`."
            )
        known, unknown = [np.zeros(0)], [np.zeros(0)]
        for batch in episodes:
            scores = self._known_and_unknown_scores(
                *keras.utils.unpack_x_y_sample_weight(batch)
            )
            known.append(scores[0])
            unknown.append(scores[1])
        known, unknown = np.concatenate(known), np.concatenate(unknown)
        result = calibration.calibrate(
            np.concatenate([known, unknown]),
            np.arange(len(known) + len(unknown)) < len(known),
            false_accept_rate,
        )
        # A score above the threshold is accepted; where two logits are equal,
        # the class would win, which comes first.
        above = np.nextafter(np.float32(result.threshold), np.float32("inf"))
        self.unknown_threshold.assign(above)
        return result

    def _known_and_unknown_scores(self, x, y, sample_weight):
        """Returns the highest logits of queries with and without their class.

        Returns:
            A tuple of arrays, one number for each query that is of a class,
            and one for each query.
        """
        if y is None:
            raise ValueError(
                "`episodes` must hold the labels of the queries, `(x, y)`. "
                "Received: a data set of `x` alone."
            )
        self._check_batch(x, y, sample_weight)
        support, labels, weight, queries = self._parts(x, training=False)
        present = tf.reduce_any(labels * weight[..., None] > 0, axis=1)
        if np.any(np.sum(present, axis=-1) < 2):
            raise ValueError(
                "Each episode must have two classes or more, so that one can "
                "be left out. Received: an episode of one class."
            )

        def best(weight):
            logits = self.answer(support, labels, weight, queries, False)
            return tf.reduce_max(logits[..., :-1], axis=-1).numpy()

        y = np.asarray(y)
        counted = np.ones(y.shape, bool)
        if sample_weight is not None:
            counted = np.asarray(sample_weight) > 0
        with_all = best(weight)
        without = with_all.copy()
        for way in range(labels.shape[-1]):
            left_out = best(weight * (1.0 - labels[..., way]))
            without = np.where(y == way, left_out, without)
        of_a_class = y < labels.shape[-1]
        return with_all[counted & of_a_class], without[counted]

    def get_config(self):
        return {**super().get_config(), "unknown": self.unknown}
