import functools

import keras
import numpy as np
import tensorflow as tf

from keras_meta import adapting_weights
from keras_meta import arguments
from keras_meta import divergence
from keras_meta import episode
from keras_meta import inner_loop
from keras_meta import masks
from keras_meta import normalization
from keras_meta import per_step_normalization
from keras_meta import replicas
from keras_meta import task_mapping as task_mapping_module
from keras_meta import xla
from keras_meta.algorithms import network_copy
from keras_meta.algorithms.base import EpisodicModel
from keras_meta.algorithms.base import named_arguments
from keras_meta.algorithms.query_metrics import QueryMetrics
from keras_meta.update_rules.gradient_descent import rule_or_descent

# Up to so many steps, a loop is slower (by 6 to 18 % on images) than the steps
# written out, whose graph takes two seconds more to make.
_STEPS_WRITTEN_OUT = 10


class InnerLoopModel(EpisodicModel):
    """An episodic model that adapts its network by inner steps.

    What these algorithms share: how a task is adapted and its queries are
    answered. They differ in three independent choices: where the adaptation
    starts and which weights adapt (`initial_weights()`, `adapts`), how an
    inner step is taken (`update_rule`), and how the outer gradient is formed
    (`outer_gradient()`).

    The arguments are described where they are used; see `keras_meta.MAML`.
    """

    # Whether many inner steps are taken in a loop of the graph, which
    # remembers none of them: no gradient passes through it.
    rolls_steps = False

    def __init__(
        self,
        network,
        inner_steps=1,
        inner_learning_rate=None,
        inner_loss=None,
        evaluation_steps=None,
        update_rule=None,
        adapts="all",
        normalization_statistics="batch",
        normalization_scales="shared",
        task_mapping="auto",
        **kwargs,
    ):
        super().__init__(network, **kwargs)
        arguments.check_positive_integer("inner_steps", inner_steps)
        if evaluation_steps is None:
            evaluation_steps = inner_steps
        arguments.check_positive_integer("evaluation_steps", evaluation_steps)
        arguments.check_choice(
            "normalization_statistics",
            normalization_statistics,
            normalization.STATISTICS,
        )
        arguments.check_choice(
            "normalization_scales", normalization_scales, normalization.SCALES
        )
        arguments.check_choice(
            "task_mapping", task_mapping, task_mapping_module.CHOICES
        )
        if not network.trainable_variables:
            raise ValueError(
                "`network` must have trainable weights, since these adapt. "
                f"Received: network={network!r} without any. Set "
                "`trainable = True` on the layers that shall adapt."
            )
        update_rule = rule_or_descent(update_rule, inner_learning_rate, 0.01)
        normalization.check_layers(network)
        self._shared = [id(v) for v in network.trainable_variables]
        self._adapting = adapting_weights.mask(network, adapts)
        self.adapts = adapts
        self.per_step = None
        if "per_step" in (normalization_statistics, normalization_scales):
            self.per_step = self._make_per_step(
                inner_steps,
                evaluation_steps,
                normalization_statistics == "per_step",
                normalization_scales == "per_step",
            )
        self.inner_steps = int(inner_steps)
        self.evaluation_steps = int(evaluation_steps)
        _check_reduction("inner_loss", inner_loss)
        self.inner_loss = keras.losses.get(inner_loss)
        self.update_rule = update_rule
        self.update_rule.build_for(
            masks.chosen(network.trainable_variables, self._adapting)
        )
        self.normalization_statistics = normalization_statistics
        self.normalization_scales = normalization_scales
        self.task_mapping = task_mapping

        self.support_loss_before = keras.metrics.Mean("support_loss_before")
        self.support_loss_after = keras.metrics.Mean("support_loss_after")
        self.divergence = divergence.DivergenceTracker(
            [variable.path for variable in network.trainable_variables]
        )
        self.query_metrics = [QueryMetrics("before")]

    def _make_per_step(self, steps, evaluation_steps, statistics, scales):
        if evaluation_steps > steps:
            raise ValueError(
                "With normalization per step, `evaluation_steps` must not be "
                "more than the `inner_steps` that are trained. Received: "
                f"inner_steps={steps} and evaluation_steps={evaluation_steps}. "
                "Train with more steps, or evaluate with fewer."
            )
        per_step = per_step_normalization.PerStepNormalization(
            self.network, steps, statistics, scales
        )
        # What has a copy for each step is learned by the outer loop alone.
        self._adapting = [
            adapting and not per_step.scaled(number)
            for number, adapting in enumerate(self._adapting)
        ]
        return per_step

    def initial_weights(self, task, weights, training):
        """Returns where the adaptation to a task starts.

        Args:
            task: Dictionary of one task's part of a meta-batch.
            weights: List of tensors, for `network.trainable_variables`.
            training: Boolean.

        Returns:
            List of tensors of the same shapes; `weights` unless an algorithm
            starts elsewhere.
        """
        return weights

    def outer_gradient(self, task, weights):
        """Returns one task's part of the outer update; the hook of training.

        Args:
            task: Dictionary of one task's part of a meta-batch.
            weights: List of tensors, for `network.trainable_variables`.

        Returns:
            A tuple: the list of gradients for `trainable_variables`, the
            `keras_meta.inner_loop.Adaptation`, the predictions for the
            queries, and the query loss.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`outer_gradient(task, weights)`."
        )

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        _check_reduction("loss", loss)
        given = named_arguments(
            keras.Model.compile, self, (optimizer, loss, *args), kwargs
        )
        wanted = given.get("jit_compile", "auto")
        if wanted == "auto" and self._distribute_strategy is None:
            steps = given.get("steps_per_execution", 1)
            dense = task_mapping_module.is_dense(self.network)
            if not given.get("run_eagerly") and xla.is_faster(
                self.network, dense, self.inner_steps, steps
            ):
                given["jit_compile"] = True
        super().compile(**given)
        for metrics in self.query_metrics:
            metrics.follow(self._compile_metrics)

    @property
    def task_loss(self):
        """The loss of the inner loop: the compiled one if none was given."""
        loss = self.inner_loss
        compiled = getattr(self, "loss", None)
        if loss is None and isinstance(compiled, (dict, list, tuple)):
            raise ValueError(
                "With a loss for each output, `inner_loss` must be given. "
                f"Received: inner_loss=None and loss={compiled}. Pass for "
                "example `inner_loss='mse'`."
            )
        if loss is None:
            loss = keras.losses.get(compiled)
        if loss is None:
            raise ValueError(
                "The inner loop must have a loss. Received: inner_loss=None, "
                "and a model that is not compiled with a loss. Pass "
                "`inner_loss=` to the constructor, or call "
                "`compile(loss=...)` first."
            )
        return loss

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_episode(x)
        self._check_statistics(x, training=True)
        weights = self._network_weights()
        mapping = self._mapping()

        def learn(task):
            gradients, adaptation, predictions, loss = self.outer_gradient(
                task, weights
            )
            results = {
                "gradients": gradients,
                "predictions": predictions,
                "finite": divergence.all_finite(
                    adaptation.weights_per_step[-1], [loss, *gradients]
                ),
                "support_losses": tf.stack(adaptation.support_losses),
                "observations": self._observe_some(
                    task, adaptation, predictions, loss, mapping
                ),
            }
            if self.per_step is not None:
                results["statistics"] = self._statistics(task, adaptation)
            return results

        # The gradient is taken inside the map, task by task, so that memory
        # does not grow with the number of tasks.
        tasks = self._tasks(x, y, sample_weight, training=True)
        # XLA takes one loop after another, so that halves would gain nothing.
        halves = task_mapping_module.halves_are_faster(tasks, mapping)
        if halves and not self._rolls(self.inner_steps):
            results = task_mapping_module.map_halves(learn, tasks)
        else:
            results = self._map_tasks(learn, tasks)
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
        if self.per_step is not None:
            self.per_step.update_statistics(results["statistics"], diverged)
        return self.compute_metrics(x, y, results["predictions"], sample_weight)

    def call(self, x, training=False):
        self._check_episode(x)
        steps = self.inner_steps if training else self.evaluation_steps
        weights = self._network_weights()

        def answer(task):
            adaptation = self._adapt_task(task, weights, steps, training)
            return self._predict(task, adaptation, -1, training)

        return self._map_tasks(answer, self._tasks(x, training=training))

    @property
    def task_weights(self):
        """Which of the network's trainable weights a task has of its own.

        A list of booleans: those that adapt, and those that an algorithm
        starts elsewhere.
        """
        return self._adapting

    def task_state(self, x):
        x = {**x, episode.QUERY_X: x[episode.SUPPORT_X]}
        self._check_episode(x)
        weights = self._network_weights()

        def adapt(task):
            adaptation = self._adapt_task(
                task, weights, self.evaluation_steps, training=False
            )
            adapted = adaptation.weights_per_step[-1]
            statistics = []
            if self._statistics_used(training=False) == "support":
                statistics = inner_loop.kept_statistics(
                    self.network,
                    *self._at_step(
                        self.evaluation_steps, adapted, adaptation.states[-1]
                    ),
                    task[episode.SUPPORT_X],
                    task.get(episode.SUPPORT_WEIGHT),
                )
            own = masks.chosen(adapted, self.task_weights)
            return {"weights": own, "statistics": statistics}

        return task_mapping_module.map_one_or_more(
            adapt, self._tasks(x), self._mapping()
        )

    def answer_from_state(self, state, query_x):
        shared = self._network_weights()

        def answer(task):
            weights, network_state = self._at_step(
                self.evaluation_steps,
                masks.with_chosen(shared, self.task_weights, task["weights"]),
                inner_loop.network_state(self.network),
            )
            return inner_loop.predict_with_statistics(
                self.network,
                weights,
                network_state,
                task["statistics"],
                task[episode.QUERY_X],
                self._statistics_used(training=False),
            )

        return task_mapping_module.map_one_or_more(
            answer, {**state, episode.QUERY_X: query_x}, self._mapping()
        )

    def predictions_per_step(self, x):
        self._check_episode(x)
        weights = self._network_weights()
        steps = self.evaluation_steps

        def answers(task):
            adaptation = self._adapt_task(
                task, weights, steps, training=False, rolled=False
            )
            return [
                self._predict(task, adaptation, step, training=False)
                for step in range(steps + 1)
            ]

        return self._map_tasks(answers, self._tasks(x))

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = self._network_weights()
        steps = self.evaluation_steps

        def evaluate(task):
            adaptation = self._adapt_task(task, weights, steps, training=False)
            return {
                "predictions": self._predict(task, adaptation, -1, False),
                "observations": self._observe_fully(task, adaptation),
                "finite": divergence.all_finite(
                    adaptation.weights_per_step[-1], adaptation.support_losses
                ),
                "support_losses": tf.stack(adaptation.support_losses),
            }

        tasks = self._tasks(x, y, sample_weight)
        results = self._map_tasks(evaluate, tasks)
        self._track(y, sample_weight, results, results["observations"])
        self._track_loss(x, y, sample_weight, results, training=False)
        return self.compute_metrics(x, y, results["predictions"], sample_weight)

    def adapt(self, support_x, support_y, support_weight=None):
        """Returns a copy of the network, adapted to one task.

        The copy is an ordinary Keras model: `predict()`, `save()` and
        `export()` work as always, and it needs nothing of this package.
        It takes `evaluation_steps` inner steps. Its batch normalization
        holds the statistics of the support set, also where this model uses
        those of the batch at hand (`normalization_statistics="batch"`),
        which an ordinary Keras model does not do in `predict()`.

        Args:
            support_x: Array `[support, ...]`, the examples to adapt on.
            support_y: Array `[support, ...]`, their labels or targets.
            support_weight: Optional array `[support]`, 0 where padded.

        Returns:
            A `keras.Model` from query inputs `[query, ...]` to predictions.

        Raises:
            ValueError: Where the support set is empty, or its parts do not
                fit each other or the network.
            keras_meta.DivergenceError: Where an adapted weight is not
                finite.
        """
        task = episode.without_nan(
            self._one_task(support_x, support_y, support_weight)
        )
        adaptation = self._adapt_task(
            task, self._network_weights(), self.evaluation_steps, False
        )
        weights = adaptation.weights_per_step[-1]
        self.divergence.reset_state()
        finite = divergence.all_finite(weights, adaptation.support_losses)
        self.divergence.update_state(finite[None])
        self.divergence.raise_if_diverged(self._inner_loop_settings())

        weights, state = self._at_step(
            self.evaluation_steps,
            weights,
            inner_loop.network_state(self.network),
        )
        return network_copy.copy_network(
            self.network, task, weights, state, self.normalization_statistics
        )

    def _metrics_to_build(self):
        copies = [metrics.copies for metrics in self.query_metrics]
        return [*super()._metrics_to_build(), *copies]

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._stopping(self.train_function)
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = self._stopping(self.test_function)
        return self.test_function

    def _stopping(self, function):
        """Wraps a step so that a diverged inner loop raises."""

        def stopping_function(iterator):
            logs = function(iterator)
            # The loss is NaN then; only then is it worth asking for names.
            if not np.all(np.isfinite(logs["loss"])):
                self.divergence.raise_if_diverged(self._inner_loop_settings())
            return logs

        return stopping_function

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        # Keras calls this on symbols first, for metrics to make their state.
        for metrics in self.query_metrics:
            metrics.build(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _inner_loop_settings(self):
        of_every_layer = keras.layers.Layer.get_config(self.update_rule)
        settings = {
            "inner_steps": self.inner_steps,
            "evaluation_steps": self.evaluation_steps,
            "update_rule": type(self.update_rule).__name__,
        }
        for name, value in self.update_rule.get_config().items():
            if name not in of_every_layer:
                settings[name] = value
        return ", ".join(f"{name}={value}" for name, value in settings.items())

    def _network_weights(self):
        """Returns the weights that adapt, as tensors."""
        variables = self.network.trainable_variables
        if [id(variable) for variable in variables] != self._shared:
            raise ValueError(
                "The weights that are learned are those that were trainable "
                "when the model was made. Received: a network (or a layer of "
                "it) whose `trainable` was changed since. Change it first, and "
                "then make the model."
            )
        return inner_loop.network_weights(self.network)

    def _tasks(self, x, y=None, sample_weight=None, training=False):
        """Returns the meta-batch as one structure, without what is absent."""
        tasks = {
            **episode.without_nan(x),
            "y": y,
            "sample_weight": sample_weight,
        }
        tasks = {
            key: value for key, value in tasks.items() if value is not None
        }
        count = tf.shape(tf.nest.flatten(x[episode.QUERY_X])[0])[0]
        tasks["index"] = tf.range(count)
        if training:
            tasks["seeds"] = inner_loop.draw_task_seeds(self.network, count)
        return tasks

    def _mapping(self):
        return task_mapping_module.resolve(self.task_mapping, self.network)

    def _map_tasks(self, function, tasks):
        return task_mapping_module.map_tasks(function, tasks, self._mapping())

    def _adapt_task(self, task, weights, steps, training, **arguments):
        """Runs the inner loop on the support set of one task.

        `arguments` go to `inner_loop.adapt()` as they are.
        """
        return self._adapt_from(
            task,
            self.initial_weights(task, weights, training),
            self._task_state(task),
            steps,
            training,
            **arguments,
        )

    def _adapt_from(self, task, weights, state, steps, training, **arguments):
        """Runs the inner loop from weights and a state of the network's."""
        arguments.setdefault("rolled", self._rolls(steps))
        return inner_loop.adapt(
            self.network,
            weights,
            state,
            (
                task[episode.SUPPORT_X],
                task[episode.SUPPORT_Y],
                task.get(episode.SUPPORT_WEIGHT),
            ),
            self.task_loss,
            self.update_rule,
            steps,
            adapting=self._adapting,
            training=training,
            normalization_statistics=self._statistics_used(training),
            at_step=None if self.per_step is None else self.per_step.at_step,
            **arguments,
        )

    def _rolls(self, steps):
        """Whether so many inner steps are taken in a loop of the graph."""
        many = steps > _STEPS_WRITTEN_OUT
        return self.rolls_steps and many and self.per_step is None

    def _task_state(self, task):
        return inner_loop.network_state(self.network, task.get("seeds", ()))

    def _at_step(self, step, weights, state):
        if self.per_step is None:
            return weights, state
        return self.per_step.at_step(step, weights, state)

    def _statistics_used(self, training):
        if self.normalization_statistics == "per_step":
            return "batch" if training else "frozen"
        return self.normalization_statistics

    def _predict(self, task, adaptation, step, training, statistics=None):
        """Answers the queries after a number of steps, -1 for all."""
        if statistics is None:
            statistics = self._statistics_used(training)
        step = range(len(adaptation.weights_per_step))[step]
        weights, state = self._at_step(
            step, adaptation.weights_per_step[step], adaptation.states[-1]
        )
        return inner_loop.predict(
            self.network,
            weights,
            state,
            task[episode.SUPPORT_X],
            task[episode.QUERY_X],
            training,
            statistics,
            task.get(episode.SUPPORT_WEIGHT),
        )

    def _statistics(self, task, adaptation):
        """Returns the statistics of a task's batches at every step."""
        _, after = inner_loop.forward(
            self.network,
            *self._at_step(
                len(adaptation.support_losses),
                adaptation.weights_per_step[-1],
                adaptation.states[-1],
            ),
            task[episode.QUERY_X],
            training=False,
            batch_statistics=True,
        )
        return self.per_step.used([*adaptation.states, after])

    def _query_loss(self, task, predictions, weights, training):
        """Returns the compiled loss of one task, with all that Keras adds."""
        # A batch of one task, and not of its queries: so a loss sees what it
        # sees in `evaluate()`. The scope is for the weights' regularizers.
        y, predictions, sample_weight = tf.nest.map_structure(
            lambda leaf: None if leaf is None else leaf[None],
            (task["y"], predictions, task.get("sample_weight")),
        )
        variables = self.network.trainable_variables
        with keras.StatelessScope(state_mapping=zip(variables, weights)):
            return self.compute_loss(
                None, y, predictions, sample_weight, training=training
            )

    def _observe(self, task, adaptation):
        """Measures one task before adaptation, and the support set after."""
        before = self._predict(task, adaptation, 0, training=False)
        weights = adaptation.weights_per_step[0]
        after = self._at_step(
            len(adaptation.support_losses),
            adaptation.weights_per_step[-1],
            adaptation.states[-1],
        )
        return {
            "predictions_before": before,
            "loss_before": self._query_loss(task, before, weights, False),
            "support_loss_after": self._loss_on_support(task, *after, False),
        }

    def _loss_on_support(self, task, weights, state, training):
        """Returns the inner loss of one task with the given weights."""
        weight = task.get(episode.SUPPORT_WEIGHT)
        predictions, _ = inner_loop.forward(
            self.network,
            weights,
            state,
            task[episode.SUPPORT_X],
            training,
            self._statistics_used(training) != "frozen",
            weight,
        )
        return inner_loop.mean_loss(
            self.task_loss, task[episode.SUPPORT_Y], predictions, weight
        )

    def _observe_fully(self, task, adaptation):
        """Observes one task of `evaluate()`.

        An algorithm that has `query_metrics` of its own adds what these need.
        """
        return self._observe(task, adaptation)

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

    def _track(self, y, sample_weight, results, observations):
        """Updates what is logged beside the compiled loss and metrics.

        `observations` may be of the first tasks only.
        """
        observed = tf.shape(observations["loss_before"])[0]
        first = lambda leaf: None if leaf is None else leaf[:observed]  # noqa: E731
        for metrics in self.query_metrics:
            if f"loss_{metrics.suffix}" in observations:
                metrics.update_state(
                    replicas.unscale(observations[f"loss_{metrics.suffix}"]),
                    tf.nest.map_structure(first, y),
                    observations[f"predictions_{metrics.suffix}"],
                    tf.nest.map_structure(first, sample_weight),
                )
        before = results["support_losses"][:, 0]
        self.support_loss_before.update_state(before)
        self.support_loss_after.update_state(observations["support_loss_after"])
        self.divergence.update_state(results["finite"])

    def _track_loss(self, x, y, sample_weight, results, training):
        loss = self.compute_loss(
            x, y, results["predictions"], sample_weight, training=training
        )
        # `_stopping()` looks at nothing else while all is well.
        diverged = ~tf.reduce_all(results["finite"])
        loss = tf.where(diverged, tf.constant(float("nan"), loss.dtype), loss)
        tasks = tf.shape(results["finite"])[0]
        self._loss_tracker.update_state(
            replicas.unscale(loss), sample_weight=tasks
        )

    def _check_episode(self, x):
        super()._check_episode(x)
        self._check_statistics(x)

    def _check_batch(self, x, y=None, sample_weight=None):
        super()._check_batch(x, y, sample_weight)
        if self.normalization_statistics == "frozen":
            normalization.check_frozen_statistics(self.network)
        self._check_statistics(x)

    def _check_statistics(self, x, training=False):
        """Refuses batch statistics of a single example."""
        used = {"frozen": [], "support": [episode.SUPPORT_X]}.get(
            self._statistics_used(training),
            [episode.SUPPORT_X, episode.QUERY_X],
        )
        normalization.check_example_counts(
            self.network,
            self.normalization_statistics,
            {key: x[key] for key in used},
        )

    def get_config(self):
        return {
            **super().get_config(),
            "inner_steps": self.inner_steps,
            "inner_loss": keras.losses.serialize(self.inner_loss),
            "evaluation_steps": self.evaluation_steps,
            "update_rule": keras.saving.serialize_keras_object(
                self.update_rule
            ),
            "adapts": keras.saving.serialize_keras_object(self.adapts),
            "normalization_statistics": self.normalization_statistics,
            "normalization_scales": self.normalization_scales,
            "task_mapping": self.task_mapping,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["update_rule"] = keras.saving.deserialize_keras_object(
            config["update_rule"]
        )
        config["inner_loss"] = keras.losses.deserialize(config["inner_loss"])
        if "adapts" in config:
            config["adapts"] = keras.saving.deserialize_keras_object(
                config["adapts"]
            )
        return super().from_config(config)


def _check_reduction(name, losses):
    # The outer gradient is the mean over tasks of each one's own.
    for loss in tf.nest.flatten(losses):
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in ("mean", "sum_over_batch_size"):
            raise ValueError(
                f"`{name}` must be a mean over the examples, with `reduction` "
                "'sum_over_batch_size'. Received: a loss with reduction="
                f"{reduction!r}. Scale the learning rate instead."
            )
