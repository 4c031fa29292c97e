import keras
import numpy as np

from keras_meta import arguments
from keras_meta import distances
from keras_meta.algorithms import dense_heads
from keras_meta.algorithms.class_labels import class_means
from keras_meta.algorithms.metric_model import MetricModel


@keras.saving.register_keras_serializable(package="keras_meta")
class PrototypicalNetwork(MetricModel):
    """Prototypical networks: the nearest class mean in a learned space.

    A class is represented by the mean of the embeddings of its support
    examples, its prototype, and a query belongs to class k with probability
    `softmax_k(-distance(query, prototype_k))`.

    The shots of the classes may differ, and so may the ways of training and
    evaluation; training with more ways than evaluation usually helps.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()`.
        distance: `"squared_euclidean"` (the default, the paper's choice),
            `"euclidean"`, `"cosine"`, or a function or layer `(queries,
            references)`, such as `keras_meta.distances.LearnedDistance`.
        sharpness: Float above 0, the factor of the distances in the softmax.
            The larger the embeddings, the smaller it should be: with squared
            distances of thousands of features every answer is certain from
            the start, and nothing is learned from it. Cosines, which are at
            most 2 apart, need one of about 10. Defaults to `1.0`, as in the
            paper.
        ways: Integer, the ways of every episode. `None` (the default) takes
            them from the labels. XLA is used only where they are given.
        unknown: Boolean. Whether there is one more answer, "none of these",
            the last logit; see `calibrate_unknown()`. Defaults to `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    episodes = keras_meta.episodes.from_arrays(
        images, labels, ways=20, shots=1, queries=5, meta_batch_size=1
    )
    model = keras_meta.PrototypicalNetwork(
        keras_meta.backbones.conv4(filters=16)
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(episodes, steps_per_epoch=2)
    ```

    Reference:
        - [Snell et al., 2017](https://arxiv.org/abs/1703.05175)
    """

    def __init__(
        self,
        network,
        distance="squared_euclidean",
        sharpness=1.0,
        ways=None,
        unknown=False,
        **kwargs,
    ):
        super().__init__(network, ways, unknown, **kwargs)
        self._embedding_size()
        arguments.check_positive_number("sharpness", sharpness)
        self.distance = distances.get(distance)
        self.sharpness = sharpness

    def score(self, support, labels, weight, queries, training):
        return self.score_from(self.summarize(support, labels, weight), queries)

    def summarize(self, support, labels, weight):
        return class_means(support, labels, weight)

    def score_from(self, summary, queries):
        return -self.sharpness * self.distance(queries, summary)

    def adapt(self, support_x, support_y, support_weight=None):
        """Returns the classifier of one task, an ordinary Keras model.

        A squared Euclidean distance to a prototype c is, up to a number that
        is the same for all classes, a dense layer with weights 2 c and bias
        -|c|^2. So the model is a copy of the embedding and a `Dense` layer,
        and its softmax is that of this model. With the cosine distance a
        `UnitNormalization` comes before the `Dense` layer. Both load without
        this package. With any other distance the model is a copy of this
        one that holds the support set, and this package must be imported
        before it is loaded. So it is with a network that subclasses
        `keras.Model`, which cannot be had without its class either.

        Args:
            support_x: Array `[support, ...]`, the examples to adapt on.
            support_y: Integer array `[support]`, their classes.
            support_weight: Optional array `[support]`, 0 where padded.

        Returns:
            A `keras.Model` from query inputs `[query, ...]` to logits
            `[query, ways]`; with `unknown`, `[query, ways + 1]`.

        Raises:
            ValueError: Where the support set is empty or lacks a class.
        """
        is_linear = self.distance in (
            distances.squared_euclidean,
            distances.cosine,
        )
        # Keras makes no layers of one that subclasses `keras.Model`.
        if not is_linear or not hasattr(self.network, "inputs"):
            return super().adapt(support_x, support_y, support_weight)
        support, labels, weight = self._embed_support(
            support_x, support_y, support_weight
        )
        prototypes = class_means(support, labels, weight)[0].numpy()
        inputs, embeddings = dense_heads.copy_embedding(self.network)
        # Half precision would be too coarse for squares.
        dtype = self.variable_dtype
        if self.distance is distances.cosine:
            embeddings = keras.layers.UnitNormalization(dtype=dtype)(embeddings)
            lengths = np.linalg.norm(prototypes, axis=1, keepdims=True)
            kernel = (prototypes / np.maximum(lengths, 1e-12)).T
            # This model's logits are cosines less 1.
            bias = -np.ones(len(prototypes))
        else:
            kernel = 2.0 * prototypes.T
            bias = -np.sum(np.square(prototypes), axis=1)
        kernel, bias = self.sharpness * kernel, self.sharpness * bias
        if self.unknown:
            # One more column, whose logit is the threshold.
            kernel = np.pad(kernel, [(0, 0), (0, 1)])
            bias = np.append(bias, self.unknown_threshold)
            if self.distance is distances.squared_euclidean:
                # The logits of the classes lack -|q|^2 times the sharpness, so
                # this one gets it instead.
                both = [embeddings, embeddings]
                squares = keras.layers.Dot(axes=1, dtype=dtype)(both)
                embeddings = keras.layers.Concatenate(dtype=dtype)(
                    [embeddings, squares]
                )
                kernel = np.pad(kernel, [(0, 1), (0, 0)])
                kernel[-1, -1] = self.sharpness
        return dense_heads.with_head(inputs, embeddings, kernel, bias, dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "distance": distances.serialize(self.distance),
            "sharpness": self.sharpness,
        }
