import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode


class Pretraining:
    """Training on ordinary labeled examples, for models that answer episodes.

    Put before the episodic model among the bases of a class: `fit()` then
    takes examples `[batch, ...]` with their labels, as every Keras model does,
    `evaluate()` and `predict()` take examples or episodes, and so does
    `fit(validation_data=...)`. A subclass writes `answer_examples()`.
    """

    _data_name = "data"
    _batch_name = "batch"
    _fixed_list = "it finite with `episodes=` or `take()`"

    def answer_examples(self, x, training):
        """Answers ordinary examples; what `fit()` trains.

        Args:
            x: Batch of examples `[batch, ...]`.
            training: Boolean.

        Returns:
            Tensor `[batch, outputs]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`answer_examples(x, training)`."
        )

    def make_pretraining_head(self, outputs):
        """Makes the dense layer from embeddings to the training classes.

        Args:
            outputs: Integer, the number of classes, or the size of a target;
                `None` where the network comes pretrained.

        Returns:
            A built `keras.layers.Dense`, or `None`.
        """
        if outputs is None:
            return None
        arguments.check_positive_integer("pretraining_outputs", outputs)
        head = keras.layers.Dense(
            outputs, dtype=self.variable_dtype, name="pretraining_head"
        )
        head.build((None, self._embedding_size()))
        return head

    def call(self, x, training=False):
        if episode.is_batch(x):
            return super().call(x, training)
        return self.answer_examples(x, training)

    def compute_output_spec(self, x, training=None):
        if episode.is_batch(x):
            return super().compute_output_spec(x, training)
        return keras.Layer.compute_output_spec(self, x, training=training)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if episode.is_batch(x):
            raise ValueError(
                f"{type(self).__name__} must be trained on ordinary labeled "
                "examples, `fit(images, labels)`, and not on episodes. "
                "Received: a meta-batch of episodes. Make examples with "
                "`keras_meta.episodes.examples()`, or turn episodes of one "
                "regression into them with `keras_meta.episodes.pooled()`."
            )

        def answer():
            predictions = self(x, training=True)
            return predictions, self.compute_loss(
                x, y, predictions, sample_weight
            )

        return self._train_with(data, answer)

    def _check_given(self, given, labeled):
        x = given.get("x")
        is_array = tf.nest.is_nested(x) or hasattr(x, "shape")
        if not is_array or episode.is_batch(x):
            super()._check_given(given, labeled)
        else:
            self._check_given_examples(given, labeled)

    def _check_batch(self, x, y=None, sample_weight=None):
        if episode.is_batch(x):
            super()._check_batch(x, y, sample_weight)
            return
        head = self.pretraining_head
        if y is not None and self.takes_integer_labels and head is not None:
            episode.check_integer_labels("`y`", tf.convert_to_tensor(y))
            labels = tf.convert_to_tensor(y)
            largest = int(tf.reduce_max(labels))
            if largest >= head.units or int(tf.reduce_min(labels)) < 0:
                raise ValueError(
                    "Training labels must lie between 0 and "
                    "`pretraining_outputs`. Received: labels up to "
                    f"{largest} with pretraining_outputs={head.units}. "
                    "`keras_meta.episodes.examples()` numbers the classes "
                    "that it is given from 0."
                )


def check_has_head(model):
    """Raises a `ValueError` where a model was not made to be pretrained."""
    if model.pretraining_head is None:
        raise ValueError(
            "To be trained with `fit()` on examples, the model must know how "
            "many classes there are. Received: pretraining_outputs=None. Give "
            "it the number of training classes, or leave `fit()` out where "
            "the network comes pretrained."
        )
