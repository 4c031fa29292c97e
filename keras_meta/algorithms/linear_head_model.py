import keras
import tensorflow as tf

from keras_meta.algorithms import dense_heads
from keras_meta.algorithms.embedding_model import EmbeddingModel
from keras_meta.algorithms.embedding_model import without_padding


class LinearHeadModel(EmbeddingModel):
    """An episodic model whose answer is a linear head, fitted to a task.

    A subclass writes `fit_head()`. The model of one task so is the network
    and a `Dense` layer.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`.
        ways: Integer, the ways of every episode, or `None` (the default); see
            `EmbeddingModel`.
        regression: Boolean. Whether labels are targets, floats
            `[examples, size]`, and not classes. Defaults to `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    targets_like_outputs = False

    def __init__(self, network, ways=None, regression=False, **kwargs):
        if regression and ways is not None:
            raise ValueError(
                "A regression has no classes, so that `ways` must not be "
                f"given. Received: ways={ways} with regression=True."
            )
        super().__init__(network, ways, **kwargs)
        self.regression = regression
        self.supports_jit = regression or ways is not None
        self._embedding_size()

    def fit_head(self, support, labels, weight):
        """Fits the head to the support sets; the hook.

        Args:
            support: Tensor `[tasks, support, size]`, what `features()` made
                of the embeddings.
            labels: Tensor `[tasks, support, ways]`, one-hot, or targets.
            weight: Tensor `[tasks, support]`, 0 where padded.

        Returns:
            A tuple of tensors, the kernels `[tasks, size, ways]` and the
            biases `[tasks, ways]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`fit_head(support, labels, weight)`."
        )

    @property
    def normalizes(self):
        """Whether embeddings are divided by their lengths first."""
        return False

    def features(self, embeddings):
        """Returns what the head takes of the embeddings.

        Args:
            embeddings: Tensor `[tasks, examples, size]`.

        Returns:
            Tensor of the same shape.
        """
        if self.normalizes:
            return tf.math.l2_normalize(embeddings, axis=-1, epsilon=1e-12)
        return embeddings

    def score(self, support, labels, weight, queries, training):
        return self.score_from(self.summarize(support, labels, weight), queries)

    def summarize(self, support, labels, weight):
        if self.regression:
            labels = tf.ensure_shape(labels, [None, None, None])
        return self.fit_head(self.features(support), labels, weight)

    def score_from(self, summary, queries):
        kernel, bias = summary
        return tf.matmul(self.features(queries), kernel) + bias[:, None]

    def adapt(self, support_x, support_y, support_weight=None):
        """Returns the model of one task: the network and a `Dense` layer.

        It loads without this package, unless the network subclasses
        `keras.Model`; then it is a copy of this model that holds the support
        set.

        Args:
            support_x: Array `[support, ...]`, the examples to adapt on.
            support_y: Array `[support, ...]`, their classes or targets.
            support_weight: Optional array `[support]`, 0 where padded.

        Returns:
            A `keras.Model` from query inputs `[query, ...]` to logits
            `[query, ways]`, or to predicted targets.

        Raises:
            ValueError: Where the support set is empty or lacks a class.
        """
        if not hasattr(self.network, "inputs"):
            return super().adapt(support_x, support_y, support_weight)
        support, labels, weight = self._embed_support(
            support_x, support_y, support_weight
        )
        support, labels = without_padding(weight, support, labels)
        kernel, bias = self.fit_head(self.features(support), labels, weight)
        inputs, embeddings = dense_heads.copy_embedding(self.network)
        dtype = self.variable_dtype
        if self.normalizes:
            embeddings = keras.layers.UnitNormalization(dtype=dtype)(embeddings)
        return dense_heads.with_head(
            inputs, embeddings, kernel[0], bias[0], dtype
        )

    def get_config(self):
        return {**super().get_config(), "regression": self.regression}
