import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_meta")
class AdaptedEmbeddingModel(keras.Model):
    """An algorithm and the support set of one task: an ordinary model.

    This is what `adapt()` gives where an algorithm answers from embeddings.
    Its inputs are queries `[query, ...]`, without an axis of tasks. The
    support set is kept as embeddings, in weights that are not trainable.

    Args:
        embedding_model: An `EmbeddingModel` that nothing else trains.
        support_shape: Tuple of integers, the shape of the embeddings of the
            support set.
        label_shape: Tuple of integers, the shape of its one-hot labels, or
            of its targets.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    def __init__(self, embedding_model, support_shape, label_shape, **kwargs):
        kwargs.setdefault("dtype", embedding_model.dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.embedding_model = embedding_model
        self.support_shape = tuple(support_shape)
        self.label_shape = tuple(label_shape)
        self.support = self._add("support", self.support_shape)
        self.labels = self._add("labels", self.label_shape)
        self.support_weight = self._add(
            "support_weight", self.support_shape[:1]
        )

    def call(self, x, training=False):
        queries = self.embedding_model.network(x, training=training)[None]
        # As the support set, which is not kept in half precision either.
        queries = tf.cast(queries, self.variable_dtype)
        support, labels, weight = (
            tf.convert_to_tensor(variable)[None]
            for variable in (self.support, self.labels, self.support_weight)
        )
        return self.embedding_model.answer(
            support, labels, weight, queries, training
        )[0]

    def _add(self, name, shape):
        return self.add_weight(
            shape=shape,
            initializer="zeros",
            trainable=False,
            autocast=False,
            name=name,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "embedding_model": keras.saving.serialize_keras_object(
                self.embedding_model
            ),
            "support_shape": self.support_shape,
            "label_shape": self.label_shape,
        }

    @classmethod
    def from_config(cls, config):
        embedding_model = keras.saving.deserialize_keras_object(
            config["embedding_model"]
        )
        return cls(**{**config, "embedding_model": embedding_model})
