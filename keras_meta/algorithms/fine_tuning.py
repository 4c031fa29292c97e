import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta import normalization
from keras_meta.algorithms import class_labels
from keras_meta.algorithms import dense_heads
from keras_meta.algorithms.base import check_network
from keras_meta.algorithms.inner_loop_model import InnerLoopModel
from keras_meta.algorithms.pretraining import Pretraining
from keras_meta.algorithms.pretraining import check_has_head


@keras.saving.register_keras_serializable(package="keras_meta")
class FineTuning(Pretraining, InnerLoopModel):
    """Pretrain on all classes at once, then fine-tune on a support set.

    The baseline of transfer learning. `fit()` is ordinary training on labeled
    examples, of all training classes at once, as made by
    `keras_meta.episodes.examples()`. A task is learned by many inner steps on
    its support set, from the pretrained weights and with a new head, of zeros.
    Nothing is learned about learning.

    A model that was never trained with `fit()`, on a network that was not
    either, is training from scratch on the support set.

    Args:
        network: A built `keras.Model`; for classes, from examples to
            embeddings `[batch, size]`, such as `keras_meta.backbones.conv4()`
            or one of `keras.applications`; for a regression, with the head,
            which is pretrained, too.
        ways: Integer, the ways of every episode, for classes. `None` (the
            default) means a regression.
        pretraining_outputs: Integer, the number of classes that `fit()` sees;
            for classes. `None` (the default) where the network comes
            pretrained, or there is no training at all.
        inner_steps: Integer, the steps on the support set. Defaults to `50`.
        inner_learning_rate: Float, the rate of the inner steps. `None` means
            `0.01`, unless an `update_rule` is given.
        inner_loss: The loss of the inner steps, as for `keras_meta.MAML`.
            `None` means the loss given to `compile()`.
        update_rule: A `keras_meta.update_rules.UpdateRule`, how an inner
            step is taken. `None` means gradient descent.
        adapts: Which weights adapt: `"all"` (the default), `"head"`, `"body"`,
            or a function that takes a layer and returns whether it adapts.
        normalization_statistics: String, the statistics that batch
            normalization uses for a task: `"frozen"` (the default), those of
            the training classes; `"support"`, those of the support set;
            `"batch"`, those of the batch at hand, which is transductive.
            Without pretraining there are none to freeze.
        task_mapping: `"vectorized"`, `"sequential"`, or `"auto"` (the
            default): how the tasks of a meta-batch are run.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    train, test = keras_meta.episodes.class_split(labels)
    model = keras_meta.FineTuning(
        keras_meta.backbones.conv4(filters=16),
        ways=5,
        pretraining_outputs=len(train),
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        keras_meta.episodes.examples(
            images, labels, classes=train, held_out=test
        ),
        epochs=2,
    )
    episodes = keras_meta.episodes.from_arrays(
        images, labels, ways=5, shots=1, queries=5, classes=test, episodes=8
    )
    print(keras_meta.evaluate_episodes(model, episodes))
    ```

    Reference:
        - [Chen et al., 2019](https://arxiv.org/abs/1904.04232)
    """

    rolls_steps = True

    def __init__(
        self,
        network,
        ways=None,
        pretraining_outputs=None,
        inner_steps=50,
        inner_learning_rate=None,
        inner_loss=None,
        update_rule=None,
        adapts="all",
        normalization_statistics="frozen",
        task_mapping="auto",
        **kwargs,
    ):
        check_network(network)
        arguments.check_choice(
            "normalization_statistics",
            normalization_statistics,
            ("frozen", "support", "batch"),
        )
        if ways is None and pretraining_outputs is not None:
            raise ValueError(
                "A regression is pretrained with the head that the network "
                "has, so that `pretraining_outputs` must not be given. "
                f"Received: pretraining_outputs={pretraining_outputs} and "
                "ways=None. For classes give `ways`."
            )
        whole = network
        if ways is not None:
            arguments.check_positive_integer("ways", ways)
            whole = dense_heads.with_new_head(network, ways)
        super().__init__(
            whole,
            inner_steps,
            inner_learning_rate,
            inner_loss,
            update_rule=update_rule,
            adapts=adapts,
            normalization_statistics=normalization_statistics,
            task_mapping=task_mapping,
            **kwargs,
        )
        self.embedding = network
        self.ways = ways
        self.pretraining_outputs = pretraining_outputs
        self.pretraining_head = self.make_pretraining_head(pretraining_outputs)

    @property
    def takes_integer_labels(self):
        """Whether labels are class numbers, and not targets to regress."""
        return self.ways is not None

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        if self.takes_integer_labels:
            class_labels.check_takes_logits(loss)
        super().compile(optimizer, loss, *args, **kwargs)

    def initial_weights(self, task, weights, training):
        if self.ways is None:
            return weights
        # The last two are those of the head, which starts anew.
        return [*weights[:-2], *map(tf.zeros_like, weights[-2:])]

    @property
    def task_weights(self):
        if self.ways is None:
            return super().task_weights
        return [*super().task_weights[:-2], True, True]

    def answer_examples(self, x, training):
        if self.ways is None:
            return normalization.call_network(self.network, x, training)
        check_has_head(self)
        embeddings = normalization.call_network(self.embedding, x, training)
        return self.pretraining_head(tf.cast(embeddings, self.variable_dtype))

    def train_step(self, data):
        return _of_examples(super().train_step(data))

    def test_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if episode.is_batch(x):
            return super().test_step(data)
        return _of_examples(keras.Model.test_step(self, data))

    def predictions_per_step(self, x):
        """Returns the predictions for the queries before and after tuning.

        Not after each of so many steps: that would take memory for all.

        Args:
            x: A meta-batch of episodes.

        Returns:
            A list of two predictions.
        """
        self._check_episode(x)
        weights = self._network_weights()

        def answers(task):
            adaptation = self._adapt_task(
                task, weights, self.evaluation_steps, training=False
            )
            return [
                self._predict(task, adaptation, step, training=False)
                for step in (0, -1)
            ]

        return self._map_tasks(answers, self._tasks(x))

    def _embedding_size(self):
        return dense_heads.embedding_size(self.embedding)

    def get_config(self):
        config = super().get_config()
        for name in ("evaluation_steps", "normalization_scales"):
            del config[name]
        return {
            **config,
            "network": keras.saving.serialize_keras_object(self.embedding),
            "ways": self.ways,
            "pretraining_outputs": self.pretraining_outputs,
        }


def _of_examples(logs):
    """Leaves out what is logged of support sets, where there are none."""
    return {
        name: value
        for name, value in logs.items()
        if not name.startswith("support_loss_") and not name.endswith("_before")
    }
