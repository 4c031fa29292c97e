import keras
import tensorflow as tf

from keras_meta.algorithms.class_labels import class_shares
from keras_meta.algorithms.metric_model import MetricModel


@keras.saving.register_keras_serializable(package="keras_meta")
class RelationNetwork(MetricModel):
    """Relation networks: a learned comparison of a query and a class.

    A class is represented by the mean of the features of its support
    examples. Each query is put beside each class, and a second network, the
    relation, says how well the two go together. So the metric is learned
    along with the features.

    Args:
        network: A built `keras.Model` from examples to feature maps
            `[batch, height, width, channels]`, such as
            `keras_meta.backbones.conv4(flatten=False, halvings=2)`, or to
            vectors `[batch, size]`.
        relation: A built `keras.Model` from the features of a query and of a
            class, one after the other on the last axis (so twice as many as
            `network` gives), to one logit, `[batch, 1]`. `None` (the
            default) makes one: for maps two convolutional blocks of 64
            filters and dense layers of 8 and 1, as in the paper; for vectors
            dense layers of 64, 8 and 1.
        ways: Integer, the ways of every episode. `None` (the default) takes
            them from the labels. XLA is used only where they are given.
        unknown: Boolean. Whether there is one more answer, "none of these",
            the last logit; see `calibrate_unknown()`. Defaults to `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described, or
            where `relation` does not take what `network` gives.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    episodes = keras_meta.episodes.from_arrays(
        images, labels, ways=5, shots=1, queries=5, meta_batch_size=1
    )
    network = keras_meta.backbones.conv4(
        filters=16, flatten=False, halvings=2
    )
    model = keras_meta.RelationNetwork(network)
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(episodes, steps_per_epoch=2)
    ```

    Reference:
        - [Sung et al., 2018](https://arxiv.org/abs/1711.06025)
    """

    def __init__(
        self, network, relation=None, ways=None, unknown=False, **kwargs
    ):
        super().__init__(network, ways, unknown, **kwargs)
        shape = self._embedding_shape()
        if shape is None:
            raise ValueError(
                "The network must know the shape of its features. Received: a "
                "network that does not. Give it a `keras.Input`."
            )
        *sides, channels = shape
        pair_shape = (*sides, 2 * channels)
        if relation is None:
            relation = _default_relation(pair_shape)
        _check_relation(relation, pair_shape)
        self.relation = relation

    def score(self, support, labels, weight, queries, training):
        classes = self.summarize(support, labels, weight)
        return self._relate(classes, queries, training)

    def summarize(self, support, labels, weight):
        # The mean and not the paper's sum, which would make the features of
        # a class grow with its shots.
        shares = class_shares(labels, weight)
        return tf.einsum("tsw,ts...->tw...", shares, support)

    def score_from(self, summary, queries):
        return self._relate(summary, queries, training=False)

    def _relate(self, classes, queries, training):
        ways, query = tf.shape(classes)[1], tf.shape(queries)[1]
        pairs = tf.concat(
            [
                tf.repeat(queries[:, :, None], ways, axis=2),
                tf.repeat(classes[:, None], query, axis=1),
            ],
            axis=-1,
        )
        logits = self.relation(
            tf.reshape(pairs, [-1, *pairs.shape[3:]]), training=training
        )
        return tf.reshape(logits, [-1, query, ways])

    def get_config(self):
        return {
            **super().get_config(),
            "relation": keras.saving.serialize_keras_object(self.relation),
        }

    @classmethod
    def from_config(cls, config):
        relation = config["relation"]
        if relation is not None:
            relation = keras.saving.deserialize_keras_object(relation)
        return super().from_config({**config, "relation": relation})


def _default_relation(pair_shape):
    """Returns the relation of the paper for pairs of such a shape."""
    x = inputs = keras.Input(pair_shape)
    if len(pair_shape) == 1:
        x = keras.layers.Dense(64, activation="relu")(x)
    else:
        for _ in range(2):
            x = keras.layers.Conv2D(64, 3, padding="same")(x)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.ReLU()(x)
            # Maps of a single row or column are left with it.
            pool = [min(2, side) for side in x.shape[1:3]]
            x = keras.layers.MaxPooling2D(pool)(x)
        x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(8, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x), name="relation")


def _check_relation(relation, pair_shape):
    if not isinstance(relation, keras.Model):
        raise TypeError(
            "`relation` must be a `keras.Model` or None. Received: relation="
            f"{relation!r} of type {type(relation).__name__}."
        )
    if not relation.built:
        raise ValueError(
            "`relation` must be built, so that its weights are there. "
            f"Received: relation={relation!r}, which is not built. Give it a "
            f"`keras.Input({pair_shape})`."
        )
    try:
        outputs = relation.compute_output_spec(
            keras.KerasTensor((None, *pair_shape))
        ).shape
    except Exception as error:
        raise ValueError(
            "`relation` must take a query beside a class, twice as many "
            f"features as the network gives, {pair_shape} for each pair. "
            f"Received: relation={relation!r}, which does not: {error}"
        ) from error
    if len(outputs) != 2 or outputs[1] != 1:
        raise ValueError(
            "`relation` must give one logit for each pair, [batch, 1]. "
            f"Received: relation={relation!r} with outputs of shape "
            f"{tuple(outputs)}. End it with `keras.layers.Dense(1)`."
        )
