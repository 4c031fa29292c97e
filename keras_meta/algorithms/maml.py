import functools

import keras
import tensorflow as tf

from keras_meta import divergence
from keras_meta import task_mapping as task_mapping_module
from keras_meta.algorithms.inner_loop_model import InnerLoopModel


@keras.saving.register_keras_serializable(package="keras_meta")
class MAML(InnerLoopModel):
    """Model-agnostic meta-learning: an initialization that adapts fast.

    The inner loop takes a few gradient steps on the support set of a task;
    the outer loop moves the initialization of the network so that the
    adapted network answers the queries well. The outer gradient passes
    through the inner steps (second order, exact), or takes their gradients
    for constants (`first_order=True`).

    Beside the loss and the compiled metrics, all after adaptation, `fit()`
    logs `support_loss_before` and `support_loss_after` adaptation, and
    `loss_before` and `<metric>_before`, the queries answered without
    adapting. In training, where tasks run one by one, those that cost a pass
    of their own are measured on the first task of each meta-batch; in
    `evaluate()` on all.

    Args:
        network: A built `keras.Model`, one example in, one prediction out,
            for classification with one output per way.
        inner_steps: Integer, the number of inner steps in training. Defaults
            to `1`.
        inner_learning_rate: Float, the rate of the inner steps. `None` means
            `0.01`, unless an `update_rule` is given.
        inner_loss: The loss of the inner steps: a `keras.losses.Loss`, its
            name, or a function `(y_true, y_pred)` that returns a value per
            example. `None` means the loss given to `compile()`.
        first_order: Boolean. Whether to leave out the second derivatives
            (FOMAML), which is cheaper. Defaults to `False`.
        evaluation_steps: Integer, the number of inner steps in `evaluate()`,
            `predict()` and `adapt()`. `None` means `inner_steps`.
        update_rule: A `keras_meta.update_rules.UpdateRule`, how an inner
            step is taken. `None` means gradient descent.
        normalization_statistics: String, the statistics that batch
            normalization uses. Within an episode moving statistics do not
            move, so that this must be chosen:

            - `"batch"` (the default): those of the batch at hand, support or
              query, in training and in prediction. Transductive, as in the
              paper's code: the queries of a task are seen together, and a
              single query cannot be answered.
            - `"support"`: those of the support set, for the queries too.
              Each query is answered on its own.
            - `"frozen"`: the moving statistics that the network came with,
              for pretrained networks.
        task_mapping: `"vectorized"`, `"sequential"`, or `"auto"` (the
            default): how the tasks of a meta-batch are run. Changes speed
            and memory, not results.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where the network is not built, has nothing to
            adapt, or another argument is not as described.

    Example:

    ```python
    episodes = keras_meta.episodes.sinusoids(
        shots=10, queries=10, meta_batch_size=25
    )
    model = keras_meta.MAML(
        keras_meta.backbones.mlp(hidden_units=(40, 40)),
        inner_steps=1,
        inner_learning_rate=0.01,
    )
    model.compile(optimizer="adam", loss="mse")
    model.fit(episodes, steps_per_epoch=100, epochs=2)
    ```

    Reference:
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
    """

    def __init__(
        self,
        network,
        inner_steps=1,
        inner_learning_rate=None,
        inner_loss=None,
        first_order=False,
        evaluation_steps=None,
        update_rule=None,
        normalization_statistics="batch",
        task_mapping="auto",
        **kwargs,
    ):
        super().__init__(
            network,
            inner_steps=inner_steps,
            inner_learning_rate=inner_learning_rate,
            inner_loss=inner_loss,
            evaluation_steps=evaluation_steps,
            update_rule=update_rule,
            normalization_statistics=normalization_statistics,
            task_mapping=task_mapping,
            **kwargs,
        )
        self.first_order = bool(first_order)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_episode(x)
        weights = self._network_weights()
        sources = self._watched(weights)
        mapping = task_mapping_module.resolve(self.task_mapping, self.network)

        def outer_gradient(task):
            with tf.GradientTape() as outer_tape:
                outer_tape.watch(weights)
                # The inner tapes are in here, one for every inner step.
                adaptation = self._adapt_task(
                    task,
                    weights,
                    self.inner_steps,
                    training=True,
                )
                predictions = self._predict(task, adaptation, -1, True)
                loss = self._query_loss(task, predictions, weights, True)
                scaled_loss = self.optimizer.scale_loss(loss)
            gradients = outer_tape.gradient(
                scaled_loss, sources, unconnected_gradients="zero"
            )
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            return {
                "gradients": gradients,
                "predictions": predictions,
                "finite": divergence.all_finite(
                    adaptation.weights_per_step[-1], [loss, *gradients]
                ),
                "support_loss_before": adaptation.support_losses[0],
                "observations": self._observe_some(
                    task, adaptation, predictions, loss, mapping
                ),
            }

        # The gradient is taken inside the map, task by task, so that memory
        # does not grow with the number of tasks.
        tasks = self._tasks(x, y, sample_weight, training=True)
        results = self._map_tasks(outer_gradient, tasks)
        gradients = [tf.reduce_mean(g, axis=0) for g in results["gradients"]]
        diverged = divergence.on_any_replica(~tf.reduce_all(results["finite"]))
        gradients = [tf.where(diverged, tf.zeros_like(g), g) for g in gradients]

        self._track_loss(x, y, sample_weight, results, training=True)
        observations = results["observations"]
        if mapping == "sequential":
            observations = tf.nest.map_structure(
                lambda leaf: leaf[:1], observations
            )
        self._track(y, sample_weight, results, observations)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return self.compute_metrics(x, y, results["predictions"], sample_weight)

    def _watched(self, weights):
        """Returns what the outer gradient is taken by: the network's weights
        as tensors, and what the update rule learns."""
        tensors = {
            id(variable): weight
            for variable, weight in zip(
                self.network.trainable_variables, weights
            )
        }
        return [
            tensors.get(id(variable), variable.value)
            for variable in self.trainable_variables
        ]

    def _observe_some(self, task, adaptation, predictions, loss, mapping):
        """Observes every task where that is cheap, or the first alone.

        An extra pass over the queries is a few small operations for all
        tasks at once, or a good part of the step for one after another.
        """
        observe = functools.partial(self._observe, task, adaptation)
        if mapping == "vectorized":
            return observe()
        unobserved = {
            "predictions_before": predictions,
            "loss_before": loss,
            "support_loss_after": adaptation.support_losses[0],
        }
        return tf.cond(
            task["index"] == 0,
            observe,
            lambda: tf.nest.map_structure(tf.zeros_like, unobserved),
        )

    def get_config(self):
        return {**super().get_config(), "first_order": self.first_order}
