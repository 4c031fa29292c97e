import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta import inner_loop
from keras_meta import normalization
from keras_meta import replicas
from keras_meta.algorithms import random_draws
from keras_meta.algorithms.inner_loop_model import InnerLoopModel
from keras_meta.algorithms.query_metrics import QueryMetrics
from keras_meta.update_rules.adam import Adam

# The shuffles of evaluation, so that the same support set is always adapted
# to in the same way.
_EVALUATION_SEED = (0, 0)


@keras.saving.register_keras_serializable(package="keras_meta")
class Reptile(InnerLoopModel):
    """Reptile: an initialization that moves towards the adapted weights.

    The inner loop takes some steps on minibatches of the support set of a
    task; the outer loop moves the initialization of the network towards
    where these have led. There are no second derivatives, and queries are
    not trained on: in training they are only measured. So the support sets
    of training take as many shots as there are examples, also where a task
    of the test has a single one.

    The outer gradient is the initial minus the adapted weights, the mean over
    the tasks of a meta-batch. With `keras.optimizers.SGD(1.0)` the outer step
    is then the one of the paper, whose rate is that of the optimizer.

    Beside the loss and the compiled metrics on the queries, all after
    adaptation, `fit()` logs `support_loss_before` (of the first minibatch)
    and `support_loss_after` adaptation, and `loss_before` and
    `<metric>_before`, the queries answered without adapting. Where the
    network has batch normalization, `evaluate()` logs two kinds of answers:
    with `normalization_statistics="support"` those to each query on its own,
    and beside them `loss_transductive` and `<metric>_transductive`, for which
    the queries of a task are normalized together.

    Args:
        network: A built `keras.Model`, one example in, one prediction out,
            for classification with one output per way.
        inner_steps: Integer, the number of inner steps in training. Defaults
            to `5`.
        inner_learning_rate: Float, the rate of the inner steps, which are
            those of Adam without momentum. `None` means `0.001`, unless an
            `update_rule` is given.
        inner_loss: The loss of the inner steps: a `keras.losses.Loss`, its
            name, or a function `(y_true, y_pred)` that returns a value per
            example. `None` means the loss given to `compile()`.
        evaluation_steps: Integer, the number of inner steps in `evaluate()`,
            `predict()` and `adapt()`. `None` means `inner_steps`.
        update_rule: A `keras_meta.update_rules.UpdateRule` that learns
            nothing, how an inner step is taken. `None` means
            `keras_meta.update_rules.Adam(inner_learning_rate, beta_1=0.0)`.
        batch_size: Integer, the support examples of an inner step. They run
            through the shuffled support set, and over its end into a new
            shuffle. A support set of no more than that is taken whole in
            every step. `None` means that all are. Defaults to `10`.
        adapts: Which weights adapt: `"all"` (the default); `"head"`, those
            of the last layer that has any; `"body"`, those of all other
            layers; or a function that takes a layer and returns whether it
            adapts. What does not adapt is not learned, and stays as it is.
        normalization_statistics: String, the statistics that batch
            normalization uses for the queries. Those of an inner step are
            always of its minibatch, but for `"frozen"`.

            - `"support"` (the default): those of the support set, and for
              what `fit()` logs of training those of the last inner step. Each
              query is answered on its own.
            - `"batch"`: those of the queries of the task together, which is
              transductive: a single query cannot be answered.
            - `"per_step"`: moving averages over the tasks of training,
              separate for each inner step. Each query is answered on its
              own, with no more steps than were trained.
            - `"frozen"`: the moving statistics that the network came with,
              for pretrained networks.
        task_mapping: `"vectorized"`, `"sequential"`, or `"auto"` (the
            default): how the tasks of a meta-batch are run. Changes speed
            and memory, not results.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where the network is not built, has nothing to
            adapt, where the update rule has something to learn, or another
            argument is not as described.

    Example:

    ```python
    episodes = keras_meta.episodes.sinusoids(
        shots=20, queries=10, meta_batch_size=5
    )
    model = keras_meta.Reptile(
        keras_meta.backbones.mlp(hidden_units=(64, 64)),
        inner_learning_rate=0.02,
        evaluation_steps=20,
    )
    model.compile(keras.optimizers.SGD(0.5), loss="mse")
    model.fit(episodes, steps_per_epoch=100, epochs=2)
    ```

    Reference:
        - [Nichol et al., 2018](https://arxiv.org/abs/1803.02999)
    """

    rolls_steps = True

    def __init__(
        self,
        network,
        inner_steps=5,
        inner_learning_rate=None,
        inner_loss=None,
        evaluation_steps=None,
        update_rule=None,
        batch_size=10,
        adapts="all",
        normalization_statistics="support",
        task_mapping="auto",
        **kwargs,
    ):
        if update_rule is None:
            if inner_learning_rate is None:
                inner_learning_rate = 0.001
            arguments.check_positive_number(
                "inner_learning_rate", inner_learning_rate
            )
            update_rule = Adam(inner_learning_rate, beta_1=0.0)
            inner_learning_rate = None
        super().__init__(
            network,
            inner_steps=inner_steps,
            inner_learning_rate=inner_learning_rate,
            inner_loss=inner_loss,
            evaluation_steps=evaluation_steps,
            update_rule=update_rule,
            adapts=adapts,
            normalization_statistics=normalization_statistics,
            # Scales of each step would be learned by the outer gradient.
            normalization_scales="shared",
            task_mapping=task_mapping,
            **kwargs,
        )
        if update_rule.trainable_variables:
            raise ValueError(
                "`update_rule` must have nothing to learn, since Reptile has "
                "no gradient for it. Received: update_rule="
                f"{type(update_rule).__name__}, with "
                f"{len(update_rule.trainable_variables)} trainable variables. "
                "Set `trainable = False` on it, or use `keras_meta.MAML`."
            )
        normalized = bool(normalization.normalization_layers(network))
        if batch_size is not None:
            arguments.check_positive_integer(
                "batch_size", batch_size, "For the whole set use `None`."
            )
            if (
                batch_size == 1
                and normalized
                and normalization_statistics != "frozen"
            ):
                raise ValueError(
                    "`batch_size` must be 2 or more where the network has "
                    "batch normalization: the statistics of a single example "
                    "leave nothing of it. Received: batch_size=1 and "
                    f"normalization_statistics={normalization_statistics!r}."
                )
        self.batch_size = None if batch_size is None else int(batch_size)
        self.shuffles = random_draws.add_seed(self, "shuffles")
        self._transductive = None
        if normalized and normalization_statistics == "support":
            self._transductive = QueryMetrics("transductive")
            self.query_metrics.append(self._transductive)

    def outer_gradient(self, task, weights):
        adaptation = self._adapt_task(task, weights, self.inner_steps, True)
        used = self._statistics_used(training=True)
        if used == "support":
            # The last inner step left those of its minibatch in the state:
            # what is only logged must not cost another pass for them.
            used = "frozen"
        predictions = self._predict(task, adaptation, -1, True, used)
        loss = self._query_loss(task, predictions, weights, True)
        # The optimizer adds the gradients of all replicas, and undoes the
        # scale, where it has one.
        gradients = [
            self.optimizer.scale_loss((before - after) / replicas.count())
            for before, after in zip(
                adaptation.weights_per_step[0], adaptation.weights_per_step[-1]
            )
        ]
        return gradients, adaptation, predictions, loss

    def train_step(self, data):
        return self._without_transductive(super().train_step(data))

    def test_step(self, data):
        logs = super().test_step(data)
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if self._answers_together(x[episode.QUERY_X], axis=1):
            return logs
        return self._without_transductive(logs)

    def get_metrics_result(self):
        results = super().get_metrics_result()
        # After an epoch of training these have not been measured.
        if self._transductive is not None and tf.executing_eagerly():
            if not np.any(self._transductive.loss.count):
                return self._without_transductive(results)
        return results

    def _without_transductive(self, logs):
        if self._transductive is None:
            return logs
        left_out = self._transductive.result()
        return {
            name: value for name, value in logs.items() if name not in left_out
        }

    def _answers_together(self, query_x, axis):
        """Whether queries are also normalized together, not being single."""
        if self._transductive is None:
            return False
        return tf.nest.flatten(query_x)[0].shape[axis] != 1

    def _observe_fully(self, task, adaptation):
        observations = super()._observe_fully(task, adaptation)
        if not self._answers_together(task[episode.QUERY_X], axis=0):
            return observations
        weights = adaptation.weights_per_step
        together = inner_loop.predict(
            self.network,
            weights[-1],
            adaptation.states[-1],
            task[episode.SUPPORT_X],
            task[episode.QUERY_X],
            normalization_statistics="batch",
        )
        return {
            **observations,
            "predictions_transductive": together,
            "loss_transductive": self._query_loss(
                task, together, weights[0], False
            ),
        }

    def _tasks(self, x, y=None, sample_weight=None, training=False):
        tasks = super()._tasks(x, y, sample_weight, training)
        size = _support_size(x, axis=1)
        if training and self._takes_minibatches(size):
            shape = self._keys_shape(
                size, episode.SUPPORT_WEIGHT in x, self.inner_steps
            )
            seed = tf.convert_to_tensor(self.shuffles)
            count = tf.shape(tasks["index"])[0]
            tasks["shuffles"] = replicas.own_share(
                lambda count: random_draws.integers([count, *shape], seed),
                count,
            )
            self.shuffles.assign(seed + [0, 1])
        return tasks

    def _adapt_task(self, task, weights, steps, training, **arguments):
        size = _support_size(task, axis=0)
        batches = None
        if self._takes_minibatches(size):
            batches = self._batches(task, size, steps)
        return super()._adapt_task(
            task, weights, steps, training, batches=batches, **arguments
        )

    def _observe_some(self, task, adaptation, predictions, loss, mapping):
        return super()._observe_some(
            self._last_minibatch(task), adaptation, predictions, loss, mapping
        )

    def _last_minibatch(self, task):
        """Returns a task whose support set is the minibatch of the last step.

        No outer gradient comes from the queries: what is logged of them in
        training must not cost more than the inner steps, as passes over a
        whole support set for its statistics would.
        """
        size = _support_size(task, axis=0)
        if not self._takes_minibatches(size):
            return task
        last = self._batches(task, size, self.inner_steps)[-1]
        support = {
            key: task[key]
            for key in (
                episode.SUPPORT_X,
                episode.SUPPORT_Y,
                episode.SUPPORT_WEIGHT,
            )
            if key in task
        }
        parts = tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, last), support
        )
        return {**task, **parts}

    def _batches(self, task, size, steps):
        """Returns the examples of each step, drawn for training or fixed."""
        weight = task.get(episode.SUPPORT_WEIGHT)
        keys = task.get("shuffles")
        if keys is None:
            shape = self._keys_shape(size, weight is not None, steps)
            keys = random_draws.integers(shape, _EVALUATION_SEED)
        return _minibatches(
            keys, weight, steps, _smaller(self.batch_size, size)
        )

    def _takes_minibatches(self, size):
        if self.batch_size is None:
            return False
        return tf.is_tensor(size) or size > self.batch_size

    def _keys_shape(self, size, weighted, steps):
        """Returns how many shuffles may be needed, and of how many."""
        draws = steps * _smaller(self.batch_size, size)
        # All but one of the examples may be padded.
        return [draws if weighted else -(-draws // size), size]

    def get_config(self):
        config = {**super().get_config(), "batch_size": self.batch_size}
        del config["normalization_scales"]
        return config


def _support_size(x, axis):
    """Returns the size of the support set: an integer, where it is known."""
    labels = tf.nest.flatten(x[episode.SUPPORT_Y])[0]
    size = labels.shape[axis]
    return tf.shape(labels)[axis] if size is None else size


def _smaller(one, other):
    return tf.minimum(one, other) if tf.is_tensor(other) else min(one, other)


def _minibatches(keys, weight, steps, batch_size):
    """Draws the minibatches of the inner steps.

    Args:
        keys: Integer tensor `[shuffles, support]`, random. The order of each
            row is a shuffle of the support set.
        weight: Optional tensor `[support]`, 0 where padded.
        steps: Integer, the number of inner steps.
        batch_size: Integer, the examples of a step.

    Returns:
        Integer tensor `[steps, batch_size]`, the examples of each step: one
        shuffle after another, without what is padded.
    """
    count = tf.shape(keys)[1]
    if weight is not None:
        real = weight != 0
        # After all others, where the count does not reach.
        keys = tf.where(real, keys // 2, keys.dtype.max)
        count = tf.maximum(tf.reduce_sum(tf.cast(real, tf.int32)), 1)
    shuffles = tf.argsort(keys)
    draws = tf.range(steps * batch_size)
    places = tf.stack([draws // count, draws % count], axis=1)
    return tf.reshape(tf.gather_nd(shuffles, places), [steps, batch_size])
