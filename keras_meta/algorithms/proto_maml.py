import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta import inner_loop
from keras_meta.algorithms import class_labels
from keras_meta.algorithms import dense_heads
from keras_meta.algorithms.base import check_network
from keras_meta.algorithms.unrolled_model import UnrolledModel


@keras.saving.register_keras_serializable(package="keras_meta")
class ProtoMAML(UnrolledModel):
    """MAML whose head starts as a prototypical network, for any ways.

    For each task the head, a dense layer with one output per way, is made
    from the means of the embeddings of the classes: with these weights it
    answers just as a prototypical network does. From there the head and the
    embedding adapt by inner steps. The outer gradient passes through both.

    As the head is made anew, the ways may differ from episode to episode, up
    to `ways`. A way that the support set of a task does not show has the logit
    -1e9. `predictions_per_step()` begins with the prototypical answer.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()`: without
            a head.
        ways: Integer, the most ways of an episode.
        inner_steps: Integer, the number of inner steps in training. Defaults
            to `1`.
        inner_learning_rate: Float, the rate of the inner steps. `None` means
            `0.01`, unless an `update_rule` is given.
        inner_loss: The loss of the inner steps. `None` means the loss given
            to `compile()`.
        sharpness: Float above 0, the factor of the squared distances in the
            head; see `keras_meta.PrototypicalNetwork`. Defaults to `1.0`.
        **kwargs: Further arguments of `keras_meta.MAML`, all but `network`,
            and of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where the network is not built, its embeddings
            are not flat, or another argument is not as described.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    model = keras_meta.ProtoMAML(
        keras_meta.backbones.conv4(filters=8, downsampling="strides"),
        ways=10,
        inner_learning_rate=0.01,
        sharpness=0.1,
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    for ways in (5, 10):
        episodes = keras_meta.episodes.from_arrays(
            images, labels, ways=ways, shots=1, queries=2, meta_batch_size=2
        )
        model.fit(episodes, steps_per_epoch=2)
    ```

    Reference:
        - [Triantafillou et al., 2020](https://arxiv.org/abs/1903.03096)
    """

    def __init__(
        self,
        network,
        ways,
        inner_steps=1,
        inner_learning_rate=None,
        inner_loss=None,
        sharpness=1.0,
        **kwargs,
    ):
        check_network(network)
        arguments.check_positive_integer("ways", ways)
        arguments.check_positive_number("sharpness", sharpness)
        super().__init__(
            dense_heads.with_new_head(network, ways),
            inner_steps,
            inner_learning_rate,
            inner_loss,
            **kwargs,
        )
        self.embedding = network
        self.ways = int(ways)
        self.sharpness = float(sharpness)
        self._embedding_weights = dense_heads.places(
            network.trainable_variables, self.network.trainable_variables
        )
        self._embedding_state = dense_heads.places(
            network.non_trainable_variables,
            self.network.non_trainable_variables,
        )

    @property
    def takes_integer_labels(self):
        return True

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        class_labels.check_takes_logits(loss)
        super().compile(optimizer, loss, *args, **kwargs)

    def initial_weights(self, task, weights, training):
        kernel, bias = self._head(
            *self._embedded_support(task, weights, training)
        )
        # The last two are those of the head.
        return [*weights[:-2], kernel, bias]

    @property
    def task_weights(self):
        return [*super().task_weights[:-2], True, True]

    def _embedded_support(self, task, weights, training):
        """Returns embeddings, one-hot labels and weights of a support set."""
        weights, state = self._at_step(0, weights, self._task_state(task))
        embeddings, _ = inner_loop.forward(
            self.embedding,
            [weights[place] for place in self._embedding_weights],
            [state[place] for place in self._embedding_state],
            task[episode.SUPPORT_X],
            training,
            batch_statistics=self._statistics_used(training) != "frozen",
            example_weight=task.get(episode.SUPPORT_WEIGHT),
        )
        embeddings = tf.cast(embeddings, self.variable_dtype)
        labels = tf.one_hot(
            tf.cast(task[episode.SUPPORT_Y], "int32"),
            self.ways,
            dtype=embeddings.dtype,
        )
        weight = task.get(episode.SUPPORT_WEIGHT)
        if weight is None:
            weight = tf.ones_like(labels[:, 0])
        return embeddings, labels, tf.cast(weight, embeddings.dtype)

    def _head(self, embeddings, labels, weight):
        """Returns the kernel and the bias that answer by prototypes.

        The squared distance of a query to a prototype c is 2 c times the
        query minus c squared, but for what is the same for all classes.
        """
        shares = class_labels.class_shares(labels[None], weight[None])[0]
        prototypes = tf.matmul(shares, embeddings, transpose_a=True)
        squares = tf.reduce_sum(tf.square(prototypes), axis=-1)
        present = tf.reduce_any(labels * weight[:, None] > 0, axis=0)
        kernel = 2 * self.sharpness * tf.transpose(prototypes)
        absent = tf.constant(class_labels.ABSENT, squares.dtype)
        return kernel, tf.where(present, -self.sharpness * squares, absent)

    def _check_batch(self, x, y=None, sample_weight=None):
        episode.check_keys(x)
        for name, labels in (
            ("`support_y`", x[episode.SUPPORT_Y]),
            ("the query labels `y`", y),
        ):
            class_labels.check_class_numbers(name, labels)
        super()._check_batch(x, y, sample_weight)
        if y is not None:
            asked = True if sample_weight is None else sample_weight > 0
            class_labels.check_support(x, y, asked)

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.embedding),
            "ways": self.ways,
            "sharpness": self.sharpness,
        }
