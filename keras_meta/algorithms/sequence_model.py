import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.algorithms.amortized_model import AmortizedModel


class SequenceModel(AmortizedModel):
    """An amortized model that reads its support set as a sequence.

    Each query is what comes after the support set; it is answered on its own,
    as if it were the only one. Padded examples are not in the sequence,
    wherever they stand.

    Args:
        network: A built `keras.Model` from examples to embeddings.
        outputs: Integer, the ways, or the size of a target.
        regression: Boolean.
        max_supports: Integer, the longest support set, or `None`: any.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    def __init__(
        self, network, outputs, regression=False, max_supports=None, **kwargs
    ):
        if max_supports is not None:
            arguments.check_positive_integer("max_supports", max_supports)
        super().__init__(network, outputs, regression, **kwargs)
        self.max_supports = max_supports

    def answer(self, support, labels, weight, queries, training):
        # Here, too, since an adapted model does not come by `call()`.
        self._check_length(support.shape[1])
        return super().answer(support, labels, weight, queries, training)

    def _check_batch(self, x, y=None, sample_weight=None):
        super()._check_batch(x, y, sample_weight)
        self._check_length(tf.nest.flatten(x[episode.SUPPORT_X])[0].shape[1])

    def _check_length(self, supports):
        if None not in (supports, self.max_supports):
            if supports > self.max_supports:
                raise ValueError(
                    "The support set must not be longer than what the model "
                    f"was made for. Received: {supports} support examples "
                    f"with max_supports={self.max_supports}. Make the model "
                    "with a larger `max_supports`, or give it fewer examples."
                )

    def get_config(self):
        return {**super().get_config(), "max_supports": self.max_supports}


def padding_first(weight, *parts):
    """Moves padded examples of support sets to the front.

    The others then follow each other, in their order, up to the queries.

    Args:
        weight: Tensor `[tasks, support]`, 0 where padded.
        *parts: Tensors `[tasks, support, ...]`.

    Returns:
        A tuple of `weight` and the parts, in the new order.
    """
    order = tf.argsort(tf.cast(weight > 0, "int32"), axis=1, stable=True)
    return tuple(
        tf.gather(part, order, axis=1, batch_dims=1)
        for part in (weight, *parts)
    )
