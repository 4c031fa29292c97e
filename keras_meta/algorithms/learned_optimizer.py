import functools

import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import inner_loop
from keras_meta import rule_optimizer
from keras_meta.algorithms.inner_loop_model import InnerLoopModel
from keras_meta.gradients import dense_gradients
from keras_meta.update_rules import coordinates
from keras_meta.update_rules.coordinatewise_lstm import CoordinatewiseLSTM

# Added to a loss before its logarithm is taken.
_LEAST = 1e-6


@keras.saving.register_keras_serializable(package="keras_meta")
class LearnedOptimizer(InnerLoopModel):
    """Learns to optimize: what is trained is the update rule alone.

    A task is a network to be trained on the support set from new weights, by
    a rule that is learned from many such trainings. The loss of a task is
    the mean of the support losses after each inner step, and its gradient
    is taken in segments: between them, weights and the rule's state are
    constants. The gradients of all segments are averaged for one step of the
    optimizer of `compile()`; the paper takes a step after each.

    The network lends its architecture, and the mean and standard deviation
    of each of its weight tensors, with which the weights of a task are
    drawn: anew for each task and step in training, and always the same in
    evaluation. Its own weights are not trained.

    `keras_optimizer()` gives the learned rule as an optimizer of Keras, for
    any model.

    Beside what every model with an inner loop logs, `fit()` and
    `evaluate()` log `trajectory_loss`, the mean of the support losses before
    each inner step. It is what is trained, but for the end of the inner loop.
    `loss` and the compiled metrics are of the queries after all steps.

    Args:
        network: A built `keras.Model`, one example in, one prediction out.
        update_rule: A `keras_meta.update_rules.UpdateRule` that has trainable
            weights. `None` means `CoordinatewiseLSTM()`.
        inner_steps: Integer, the number of inner steps in training. Defaults
            to `100`.
        truncation: Integer from 1 to `inner_steps`, the number of inner steps
            of a segment. Memory grows with it. Defaults to `20`.
        inner_loss: The loss of the inner steps: a `keras.losses.Loss`, its
            name, or a function `(y_true, y_pred)` that returns a value per
            example. `None` means the loss given to `compile()`.
        evaluation_steps: Integer, the number of inner steps in `evaluate()`,
            `predict()` and `adapt()`. `None` means `inner_steps`.
        first_order: Boolean. Whether the gradients that the rule reads count
            as constants in the outer gradient, as in the paper. Defaults to
            `True`.
        log_loss: Boolean. Whether the outer loss is the mean of the logarithms
            of the support losses, in which a step counts by the share that it
            takes off, be the loss large or small. In the mean of the losses
            themselves, as in the paper, the first steps outweigh all others.
            Needs an inner loss that is not negative. Defaults to `False`.
        normalization_statistics: `"batch"` (the default), `"support"` or
            `"frozen"`, the statistics that batch normalization uses; see
            `keras_meta.MAML`.
        task_mapping: `"vectorized"`, `"sequential"`, or `"auto"` (the
            default): how the tasks of a meta-batch are run. Changes speed
            and memory, not results.
        seed: Integer, from which the weights of the tasks are drawn in
            training. `None` (the default) means another one each time.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where the network is not built, the rule has
            nothing to learn, or another argument is not as described.

    Example:

    ```python
    learned = keras_meta.LearnedOptimizer(
        keras_meta.backbones.mlp(hidden_units=(8,)),
        inner_steps=20,
        truncation=10,
    )
    learned.compile(keras.optimizers.Adam(0.003), loss="mse")
    learned.fit(
        keras_meta.episodes.sinusoids(meta_batch_size=4), steps_per_epoch=5
    )
    wider = keras_meta.backbones.mlp(hidden_units=(16,))
    wider.compile(optimizer=learned.keras_optimizer(), loss="mse")
    ```

    Reference:
        - [Andrychowicz et al., 2016](https://arxiv.org/abs/1606.04474)
    """

    def __init__(
        self,
        network,
        update_rule=None,
        inner_steps=100,
        truncation=20,
        inner_loss=None,
        evaluation_steps=None,
        first_order=True,
        log_loss=False,
        normalization_statistics="batch",
        task_mapping="auto",
        seed=None,
        **kwargs,
    ):
        arguments.check_choice("first_order", first_order, (True, False))
        arguments.check_choice("log_loss", log_loss, (True, False))
        arguments.check_choice(
            "normalization_statistics",
            normalization_statistics,
            ("batch", "support", "frozen"),
        )
        super().__init__(
            network,
            inner_steps=inner_steps,
            inner_loss=inner_loss,
            evaluation_steps=evaluation_steps,
            update_rule=(
                CoordinatewiseLSTM() if update_rule is None else update_rule
            ),
            normalization_statistics=normalization_statistics,
            task_mapping=task_mapping,
            **kwargs,
        )
        arguments.check_positive_integer("truncation", truncation)
        if truncation > inner_steps:
            raise ValueError(
                "`truncation` must not be more than `inner_steps`. Received: "
                f"truncation={truncation} and inner_steps={inner_steps}. With "
                "as many there is one segment, and the gradient is exact."
            )
        if not self.update_rule.trainable_variables:
            raise ValueError(
                "`update_rule` must have trainable weights, since these are "
                f"what is learned. Received: update_rule={update_rule!r} "
                "without any. Take for example "
                "`keras_meta.update_rules.CoordinatewiseLSTM()`."
            )
        self.truncation = int(truncation)
        self.first_order = first_order
        self.log_loss = log_loss
        self.seed = seed
        self.trajectory_loss = keras.metrics.Mean("trajectory_loss")
        # A weight and no `SeedGenerator`, whose state is in no file.
        drawn = keras.random.SeedGenerator(seed).state.numpy()
        self.start_seed = self.add_weight(
            shape=(2,),
            initializer=lambda shape, dtype: tf.cast(drawn, dtype),
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
            name="start_seed",
        )

    @property
    def trainable_variables(self):
        """What the optimizer of `compile()` sees: the rule's weights."""
        return self.update_rule.trainable_variables if self.trainable else []

    @property
    def trainable_weights(self):
        """The same as `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_variables(self):
        """All other variables, those of the network, too."""
        return self._without_trained(self.variables)

    @property
    def non_trainable_weights(self):
        """All other weights, those of the network, too."""
        return self._without_trained(self.weights)

    def _without_trained(self, variables):
        trained = {id(variable) for variable in self.trainable_variables}
        return [v for v in variables if id(v) not in trained]

    def initial_weights(self, task, weights, training):
        """Returns where the training of a task's network starts.

        Each weight tensor is drawn from the normal distribution with the
        mean and the standard deviation of the network's own. A tensor of
        equal numbers, such as biases of zeros, stays as it is.

        Args:
            task: Dictionary of one task's part of a meta-batch.
            weights: List of tensors, for `network.trainable_variables`.
            training: Boolean. In training, tasks start from weights of their
                own; else always from the same ones.

        Returns:
            List of tensors of the same shapes.
        """
        noise = task["start_noise"] if training else self._start_noise()
        start = []
        for weight, part in zip(weights, coordinates.split(noise, weights)):
            mean = tf.reduce_mean(weight)
            spread = tf.math.reduce_std(weight)
            start.append(mean + spread * part)
        return start

    def _start_noise(self, tasks=None, seed=None):
        variables = self.network.trainable_variables
        count, dtype = coordinates.count(variables), variables[0].dtype
        if tasks is None:
            # XLA draws other numbers than TensorFlow does, and evaluation is
            # the same with both.
            noise = np.random.default_rng(0).normal(size=count)
            return tf.constant(noise, dtype)
        return tf.random.stateless_normal([tasks, count], seed, dtype=dtype)

    def _tasks(self, x, y=None, sample_weight=None, training=False):
        tasks = super()._tasks(x, y, sample_weight, training)
        if training:
            seed = tf.convert_to_tensor(self.start_seed)
            tasks["start_noise"] = self._start_noise(
                tf.shape(tasks["index"])[0], seed
            )
            self.start_seed.assign(seed + 1)
        # Only `train_step()` has labels in training.
        learn = training and y is not None
        run = functools.partial(self._run, training=training, learn=learn)
        if tf.executing_eagerly() and self._mapping() == "vectorized":
            # Or each turn of the loop would be traced by itself.
            run = tf.function(run, autograph=False)
        return {**tasks, "run": run(tasks)}

    def outer_gradient(self, task, weights):
        adaptation = self._adapt_task(task, weights, self.inner_steps, True)
        predictions = self._predict(task, adaptation, -1, True)
        loss = self._query_loss(task, predictions, weights, True)
        return task["run"]["gradients"], adaptation, predictions, loss

    def _adapt_task(self, task, weights, steps, training, **arguments):
        run = task.get("run")
        if run is None:
            # `adapt()` has one task, outside of any graph.
            return super()._adapt_task(
                task, weights, steps, training, **arguments
            )
        weights_per_step = [run["start"]]
        if run["moving"]:
            moving = [tf.unstack(weight, num=steps) for weight in run["moving"]]
            weights_per_step += map(list, zip(*moving))
        else:
            weights_per_step.append(run["end"])
        losses = tf.unstack(run["losses"], num=steps)
        return inner_loop.Adaptation(
            weights_per_step, losses, [run["state"]], rule_state=None
        )

    def _run(self, tasks, training, learn):
        """Runs the inner loops of all tasks, segment by segment.

        The segments are a loop of the graph, in which the tasks are mapped,
        so that one segment alone is in memory, and one or two in the graph,
        however many steps there are. Without learning, a segment is a step.

        Returns:
            A dictionary of what there is of each task: weights at the
            `"start"` and the `"end"`, the network's `"state"` then, and the
            `"losses"` of the support set before each step; where the rule
            learns its `"gradients"`, and else `"moving"`, the weights after
            each step.
        """
        steps = self.inner_steps if training else self.evaluation_steps
        length = self.truncation if learn else 1
        count, rest = divmod(steps, length)
        weights = self._network_weights()

        def begin(task):
            start = self.initial_weights(task, weights, training)
            rule_state = self.update_rule.initial_state(start)
            return start, rule_state, self._task_state(task)

        def segment(first_step, length, carried):
            return self._map_tasks(
                lambda task: self._segment(
                    *task, first_step, length, training, learn
                ),
                (tasks, carried),
            )

        carried = self._map_tasks(begin, tasks)
        start = carried[0]
        number = start[0].shape[0] or tf.shape(start[0])[0]
        gradients = [
            tf.zeros([number, *variable.shape], variable.dtype)
            for variable in (self.trainable_variables if learn else [])
        ]
        records = []
        if count > 1:
            carried, gradients, record = _repeat(
                segment, count, length, carried, gradients, not learn and start
            )
            records.append(record)
        elif count:
            rest += length
        if rest:
            carried, parts, record = segment(steps - rest, rest, carried)
            gradients = [one + other for one, other in zip(gradients, parts)]
            records.append(record)
        losses, *moving = [tf.concat(parts, axis=1) for parts in zip(*records)]
        end, _, state = carried
        return {
            "start": start,
            "end": end,
            "state": state,
            "losses": losses,
            "gradients": gradients,
            "moving": moving,
        }

    def _segment(self, task, carried, first_step, steps, training, learn):
        """Takes some inner steps of one task.

        Returns:
            A tuple: what is carried on, the gradients (none unless the rule
            learns), and what is recorded: the support losses before each
            step, and unless the rule learns the weights after each.
        """
        weights, rule_state, state = carried
        with tf.GradientTape() as tape:
            # What came before is not on this tape, and so is constant.
            adaptation = self._adapt_from(
                task,
                weights,
                state,
                steps,
                training,
                rule_state=rule_state,
                first_step=first_step,
                constant_steps=steps if self.first_order else 0,
            )
            if learn:
                losses = [
                    *adaptation.support_losses[1:],
                    self._loss_on_support(
                        task,
                        adaptation.weights_per_step[-1],
                        adaptation.states[-1],
                        training,
                    ),
                ]
                if self.log_loss:
                    losses = [tf.math.log(loss + _LEAST) for loss in losses]
                share = tf.add_n(losses) / self.inner_steps
                share = self.optimizer.scale_loss(share)
        gradients = []
        record = [tf.stack(adaptation.support_losses)]
        if learn:
            gradients = dense_gradients(
                tape,
                share,
                [variable.value for variable in self.trainable_variables],
            )
        else:
            record += map(tf.stack, zip(*adaptation.weights_per_step[1:]))
        carried = (
            adaptation.weights_per_step[-1],
            adaptation.rule_state,
            adaptation.states[-1],
        )
        return carried, gradients, record

    def _track(self, y, sample_weight, results, observations):
        super()._track(y, sample_weight, results, observations)
        self.trajectory_loss.update_state(results["support_losses"])

    def keras_optimizer(self, learning_rate=1.0, **kwargs):
        """Returns the learned rule as an optimizer of Keras.

        It has a copy of what is learned, and trains any model:
        `other.compile(optimizer=learned.keras_optimizer(), loss=...)`.

        Args:
            learning_rate: Float, or a schedule of Keras, by which each move
                is multiplied. Defaults to `1.0`, as the rule was trained.
            **kwargs: Arguments of `keras.optimizers.Optimizer`, such as
                `clipnorm`.

        Returns:
            A `keras_meta.RuleOptimizer`.

        Raises:
            ValueError: Where what the rule learns belongs to one network.
        """
        return rule_optimizer.RuleOptimizer(
            self.update_rule, learning_rate=learning_rate, **kwargs
        )

    def get_config(self):
        config = {
            **super().get_config(),
            "truncation": self.truncation,
            "first_order": self.first_order,
            "log_loss": self.log_loss,
            "seed": self.seed,
        }
        # All weights start anew, so that none is left to be learned otherwise.
        for name in ("adapts", "normalization_scales"):
            del config[name]
        return config


def _repeat(segment, count, length, carried, gradients, weights):
    """Runs segments one after another, as a loop of the graph.

    Args:
        segment: Function `(first_step, length, carried)` that returns what is
            carried on, gradients, and a record: losses, and maybe weights.
        count: Integer, the number of segments.
        length: Integer, the steps of each.
        carried: Nested structure of tensors `[tasks, ...]`, what the first
            one gets.
        gradients: List of tensors, to which the gradients are added.
        weights: List of tensors `[tasks, ...]` like those that are recorded.

    Returns:
        A tuple: what is carried on from the last segment, the gradients, and
        the records of all, `[tasks, count * length, ...]`.
    """
    flat = tf.nest.flatten(carried)
    like = [tf.TensorSpec([flat[0].shape[0]], keras.config.floatx())]
    like += [tf.TensorSpec(w.shape, w.dtype) for w in weights or []]
    arrays = [
        tf.TensorArray(
            spec.dtype,
            count,
            element_shape=[spec.shape[0], length, *spec.shape[1:]],
        )
        for spec in like
    ]

    def body(number, flat, gradients, arrays):
        after, parts, record = segment(
            number * length, length, tf.nest.pack_sequence_as(carried, flat)
        )
        after = [
            tf.ensure_shape(new, old.shape)
            for new, old in zip(tf.nest.flatten(after), flat)
        ]
        arrays = [
            array.write(number, tf.cast(part, array.dtype))
            for array, part in zip(arrays, record)
        ]
        gradients = [one + other for one, other in zip(gradients, parts)]
        return number + 1, after, gradients, arrays

    _, flat, gradients, arrays = tf.while_loop(
        lambda number, *rest: number < count,
        body,
        (0, flat, gradients, arrays),
        parallel_iterations=1,
    )
    records = []
    for array, spec in zip(arrays, like):
        # [count, tasks, length, ...] to [tasks, count * length, ...].
        record = tf.stack(tf.unstack(array.stack(), num=count), axis=1)
        shape = [-1, count * length, *spec.shape[1:]]
        records.append(tf.reshape(record, shape))
    return tf.nest.pack_sequence_as(carried, flat), gradients, records
