import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.algorithms.embedding_model import EmbeddingModel


class AmortizedModel(EmbeddingModel):
    """An episodic model that has learned how to read a support set.

    Adapting to a task is a pass through trained layers, and no computation
    that is made for learning from examples: what MAML does with gradients and
    a prototypical network with means, these layers have learned to do. Their
    sizes depend on that of the labels, which so is the same in every task.

    A subclass makes its layers in `__init__()`, and writes `score()`.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`.
        outputs: Integer, the ways of every episode, or with `regression` the
            size of a target.
        regression: Boolean. Whether labels are targets, floats
            `[examples, outputs]`, and not classes. Defaults to `False`.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    targets_like_outputs = False

    def __init__(self, network, outputs, regression=False, **kwargs):
        arguments.check_positive_integer("outputs", outputs)
        arguments.check_choice("regression", regression, (True, False))
        super().__init__(network, None if regression else outputs, **kwargs)
        self.outputs = int(outputs)
        self.regression = regression
        self.supports_jit = True
        self.embedding_size = self._embedding_size()
        if self.embedding_size is None:
            raise ValueError(
                "The network must know the size of its embeddings. Received: "
                f"network={network!r}, which does not. Give it a "
                "`keras.Input`."
            )

    def add_layer(self, layer, *shape):
        """Builds a layer.

        All layers are built before the first call, so that the model's
        weights are there from the start, as those of its network are.

        Args:
            layer: A `keras.layers.Layer`.
            *shape: Tuples, the shapes of its inputs.

        Returns:
            The layer.
        """
        layer.build(*shape)
        return layer

    def _labels_and_weight(self, x, support):
        labels, weight = super()._labels_and_weight(x, support)
        if self.regression:
            # Of an exported signature nothing is known but the dtype.
            labels = tf.ensure_shape(labels, [None, None, self.outputs])
        return labels, weight

    def _check_batch(self, x, y=None, sample_weight=None):
        super()._check_batch(x, y, sample_weight)
        if self.regression:
            self._check_target_size("`support_y`", x[episode.SUPPORT_Y])
            if y is not None:
                self._check_target_size("the query targets `y`", y)

    def _check_target_size(self, name, targets):
        shape = np.shape(targets)
        if len(shape) != 3 or shape[2] != self.outputs:
            raise ValueError(
                "Targets must have the shape `[tasks, examples, outputs]`. "
                f"Received: {name} of shape {shape}, and outputs="
                f"{self.outputs}. Give the model the size of the targets."
            )

    def get_config(self):
        config = super().get_config()
        del config["ways"]
        return {
            **config,
            "outputs": self.outputs,
            "regression": self.regression,
        }


def weighted_mean(values, weight):
    """Returns the mean over a support set, `[tasks, size]`.

    Args:
        values: Tensor `[tasks, support, size]`.
        weight: Tensor `[tasks, support]`, 0 where padded.
    """
    total = tf.reduce_sum(weight, axis=1, keepdims=True)
    return tf.einsum("ts,tsd->td", weight / total, values)


def beside_each_query(values, queries):
    """Repeats `[tasks, size]` for each query, `[tasks, query, size]`."""
    return tf.repeat(values[:, None], tf.shape(queries)[1], axis=1)
