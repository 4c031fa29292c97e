"""The inner loop: from a support set to adapted weights. It exists once.

Everything here is a pure function of tensors. The network lends its layers;
its variables are neither read nor written, so that one network serves any
number of tasks side by side, and gradients flow through the whole loop.
"""

import collections
import functools

import keras
import tensorflow as tf

from keras_meta import compiled_dense
from keras_meta import inner_steps
from keras_meta import masks
from keras_meta import normalization
from keras_meta import replicas
from keras_meta import xla
from keras_meta.gradients import dense_gradients

Adaptation = collections.namedtuple(
    "Adaptation", ["weights_per_step", "support_losses", "states", "rule_state"]
)


def forward(
    network,
    weights,
    state,
    x,
    training,
    batch_statistics,
    example_weight=None,
):
    """Runs `network` on `x` with the given weights instead of its own.

    Args:
        network: A built `keras.Model`.
        weights: List of tensors, for `network.trainable_variables`.
        state: List of tensors, for `network.non_trainable_variables`: the
            statistics of batch normalization, the seeds of dropout.
        x: Input of the network, with a leading axis of examples.
        training: Boolean. Whether dropout and its like are on.
        batch_statistics: Boolean. Whether batch normalization uses the
            statistics of `x` (and returns just them in the state), or those
            in `state`.
        example_weight: Optional tensor `[examples]`. Examples of weight 0 are
            padded, and do not count in the statistics.

    Returns:
        A tuple `(predictions, state)`, the state after the call.
    """
    variables = network.trainable_variables + network.non_trainable_variables
    scope = keras.StatelessScope(
        state_mapping=zip(variables, list(weights) + list(state))
    )
    # `network()` rather than `network.stateless_call()`: the latter passes
    # `training` only to the outermost `call()`, which a subclassed model
    # need not take, and then its dropout would stay off.
    episodic = normalization.episodic(network, batch_statistics, example_weight)
    with episodic, compiled_dense.fast_layers(network), scope:
        predictions = network(x, training=training)
    new_state = [
        scope.get_current_value(variable)
        for variable in network.non_trainable_variables
    ]
    return predictions, new_state


def mean_loss(loss, y, predictions, weight=None):
    """Returns the weighted mean of a loss over the examples of one task.

    Args:
        loss: A `keras.losses.Loss`, or a function `(y_true, y_pred)` of one
            value per example.
        y: Labels or targets `[examples, ...]`, or a nested structure of
            such for a network of several outputs, whose losses are added.
        predictions: What the network answered, of the same structure.
        weight: Optional tensor `[examples]`, 0 where padded.

    Returns:
        A scalar tensor.
    """
    # `Loss.call()` and not `Loss()`: the latter also scales by the replicas
    # of a `tf.distribute` strategy, among which no task is ever divided.
    values_of = loss.call if isinstance(loss, keras.losses.Loss) else loss
    # As `Loss()` does: in half precision, squares would overflow.
    dtype = getattr(loss, "dtype", None) or keras.config.floatx()
    _check_structures(y, predictions)
    means = []
    for labels, output in zip(tf.nest.flatten(y), tf.nest.flatten(predictions)):
        labels = keras.ops.convert_to_tensor(labels, dtype)
        output = keras.ops.convert_to_tensor(output, dtype)
        values = tf.convert_to_tensor(values_of(labels, output))
        if not values.shape[:1].is_compatible_with(labels.shape[:1]):
            raise ValueError(
                "The inner loss must return a value per example. Received: "
                f"inner_loss={loss}, which returns shape {values.shape} for "
                f"{labels.shape[0]} examples. Return the losses of the "
                "examples, shape [examples], and leave the mean to the inner "
                "loop."
            )
        # What is left beside the examples (time steps, say) counts equally.
        values = tf.reduce_mean(values, axis=list(range(1, values.shape.rank)))
        if weight is None:
            means.append(tf.reduce_mean(values))
        else:
            weight = tf.cast(weight, values.dtype)
            total = tf.reduce_sum(values * weight)
            means.append(tf.math.divide_no_nan(total, tf.reduce_sum(weight)))
    return tf.add_n(means)


def _check_structures(y, predictions):
    try:
        tf.nest.assert_same_structure(y, predictions)
    except (TypeError, ValueError):
        raise ValueError(
            "The labels must have the structure of the network's outputs. "
            f"Received: labels {_outline(y)} and outputs "
            f"{_outline(predictions)}."
        ) from None


def _outline(structure):
    return tf.nest.map_structure(lambda leaf: "*", structure)


def adapt(
    network,
    weights,
    state,
    support,
    loss,
    update_rule,
    steps,
    adapting=None,
    batches=None,
    proximity=0.0,
    constant_steps=0,
    recompute=False,
    rolled=False,
    training=False,
    normalization_statistics="batch",
    at_step=None,
    rule_state=None,
    first_step=0,
):
    """Adapts weights to the support set of one task.

    Args:
        network: A built `keras.Model`.
        weights: List of tensors, for `network.trainable_variables`: where
            the adaptation starts.
        state: List of tensors, for `network.non_trainable_variables`.
        support: A tuple `(x, y, weight)` of one task's support set. `weight`
            is `None` or `[support]`, 0 where padded.
        loss: The inner loss; see `mean_loss()`.
        update_rule: A `keras_meta.update_rules.UpdateRule`.
        steps: Integer, the number of inner steps.
        adapting: List of booleans, which of the weights adapt. `None` (the
            default) means all.
        batches: Integer tensor `[steps, batch]`, the support examples of each
            step. `None` (the default) means all examples in every step.
        proximity: Float. The inner loss has half of it, times the squared
            distance of the adapting weights from where they start, added.
        constant_steps: Integer. The gradients of that many first steps count
            as constants in the outer gradient.
        recompute: Boolean. Whether a gradient through a step computes the
            step again, rather than remember it.
        rolled: Boolean. Whether the steps are taken in one loop of the graph,
            so that neither it nor memory grows with them. Of what is between
            the beginning and the end nothing is returned then, and
            `constant_steps` and `recompute` mean nothing.
        training: Boolean. Whether dropout and its like are on.
        normalization_statistics: One of `"batch"`, `"support"`, `"frozen"`;
            see `keras_meta.MAML`.
        at_step: Function `(step, weights, state)` that returns the weights
            and the state that the network is called with at a step. `None`
            (the default) means just these.
        rule_state: What the update rule remembers, to go on where another
            adaptation ended. `None` (the default) means its initial state.
        first_step: Integer, or integer tensor: how many steps were taken
            before, which `update_rule` and `at_step` are told.

    Returns:
        An `Adaptation`: `weights_per_step`, a list of `steps + 1` lists of
        tensors, the weights before the first and after each step;
        `support_losses`, the list of the losses before each of the `steps`
        steps; `states`, the list of the states after these; and `rule_state`,
        what the update rule remembers in the end.
    """
    batch_statistics = normalization_statistics != "frozen"

    def support_loss(step, weights, state):
        x, y, weight = _batch(support, batches, step)
        if at_step is not None:
            weights, state = at_step(first_step + step, weights, state)
        predictions, state = forward(
            network, weights, state, x, training, batch_statistics, weight
        )
        return mean_loss(loss, y, predictions, weight), state

    return descend(
        support_loss,
        weights,
        state,
        update_rule,
        steps,
        adapting=adapting,
        proximity=proximity,
        constant_steps=constant_steps,
        recompute=recompute,
        rolled=rolled,
        rule_state=rule_state,
        first_step=first_step,
    )


def descend(
    objective,
    weights,
    state,
    update_rule,
    steps,
    adapting=None,
    proximity=0.0,
    constant_steps=0,
    recompute=False,
    rolled=False,
    rule_state=None,
    first_step=0,
):
    """Takes inner steps down any objective: the loop of `adapt()`.

    What is not described here is described there.

    Args:
        objective: Function `(step, weights, state)` that returns the loss, a
            scalar, and the state of the network after the step. `step` is
            the number of the step among these `steps`.
        weights: List of tensors, where the descent starts.
        state: Structure of tensors that the objective hands on.
        update_rule: A `keras_meta.update_rules.UpdateRule`.
        steps: Integer, the number of inner steps.
        adapting: See `adapt()`.
        proximity: See `adapt()`.
        constant_steps: See `adapt()`.
        recompute: See `adapt()`.
        rolled: See `adapt()`.
        rule_state: See `adapt()`.
        first_step: See `adapt()`.

    Returns:
        An `Adaptation`, as `adapt()`.
    """
    if adapting is None:
        adapting = [True] * len(weights)
    start = masks.chosen(weights, adapting)

    def take_step(constant, step, weights, rule_state, state):
        moving = masks.chosen(weights, adapting)
        with tf.GradientTape() as inner_tape:
            inner_tape.watch(moving)
            all_weights = masks.with_chosen(weights, adapting, moving)
            loss, state = objective(step, all_weights, state)
        gradients = dense_gradients(inner_tape, loss, moving)
        if proximity:
            gradients = [
                gradient + proximity * (weight - anchor)
                for gradient, weight, anchor in zip(gradients, moving, start)
            ]
        if constant:
            gradients = [tf.stop_gradient(gradient) for gradient in gradients]
        moving, rule_state = update_rule.call(
            moving, gradients, rule_state, first_step + step
        )
        if xla.compiles_for_cpu():
            moving = [xla.summed_once(weight) for weight in moving]
        weights = masks.with_chosen(weights, adapting, moving)
        return weights, rule_state, state, loss

    weights = list(weights)
    if rule_state is None:
        rule_state = update_rule.initial_state(start)
    values = weights, rule_state, state
    weights_per_step, support_losses, states = [weights], [], []
    if rolled:
        runs = [(inner_steps.rolled, range(steps), True)]
    else:
        run = inner_steps.recomputed if recompute else inner_steps.one_by_one
        runs = [
            (run, range(constant_steps), True),
            (run, range(constant_steps, steps), False),
        ]
    for run, steps_of_run, constant in runs:
        step_of_run = functools.partial(take_step, constant)
        for values, support_loss in run(step_of_run, steps_of_run, values):
            weights, rule_state, state = values
            weights_per_step.append(weights)
            support_losses.append(support_loss)
            states.append(state)
    return Adaptation(weights_per_step, support_losses, states, rule_state)


def _batch(support, batches, step):
    if batches is None:
        return support
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else tf.gather(leaf, batches[step]),
        support,
    )


def predict(
    network,
    weights,
    state,
    support_x,
    query_x,
    training=False,
    normalization_statistics="batch",
    support_weight=None,
):
    """Answers the queries of one task with the given weights.

    Args:
        network: A built `keras.Model`.
        weights: List of tensors, for `network.trainable_variables`.
        state: List of tensors, for `network.non_trainable_variables`.
        support_x: Inputs of the task's support set, `[support, ...]`.
        query_x: Inputs of the task's queries, `[query, ...]`.
        training: Boolean. Whether dropout and its like are on.
        normalization_statistics: One of `"batch"`, `"support"`, `"frozen"`;
            see `keras_meta.MAML`.
        support_weight: Optional tensor `[support]`, 0 where padded.

    Returns:
        The predictions, `[query, ...]`.
    """
    if normalization_statistics == "support":
        state = support_statistics(
            network, weights, state, support_x, support_weight
        )
    predictions, _ = forward(
        network,
        weights,
        state,
        query_x,
        training,
        batch_statistics=normalization_statistics == "batch",
    )
    return predictions


def support_statistics(network, weights, state, support_x, support_weight=None):
    """Returns `state` with batch normalization's statistics of a support set.

    Args:
        network: A built `keras.Model`.
        weights: List of tensors, for `network.trainable_variables`.
        state: List of tensors, for `network.non_trainable_variables`.
        support_x: Inputs of the support set, `[support, ...]`.
        support_weight: Optional tensor `[support]`, 0 where padded.

    Returns:
        List of tensors, for `network.non_trainable_variables`.
    """
    if not normalization.normalization_layers(network):
        return state
    _, state = forward(
        network,
        weights,
        state,
        support_x,
        training=False,
        batch_statistics=True,
        example_weight=support_weight,
    )
    return state


def kept_statistics(network, weights, state, support_x, support_weight=None):
    """Returns the statistics of a support set alone, to keep of a task.

    Args:
        network: See `support_statistics()`.
        weights: See there.
        state: See there.
        support_x: See there.
        support_weight: See there.

    Returns:
        List of tensors, for `predict_with_statistics()`.
    """
    state = support_statistics(
        network, weights, state, support_x, support_weight
    )
    return masks.chosen(state, normalization.statistics_mask(network))


def predict_with_statistics(
    network, weights, state, statistics, query_x, normalization_statistics
):
    """Answers the queries of one task as `predict()`, without its support set.

    Args:
        network: A built `keras.Model`.
        weights: List of tensors, for `network.trainable_variables`.
        state: List of tensors, for `network.non_trainable_variables`.
        statistics: What `kept_statistics()` returned; read with `"support"`
            only.
        query_x: Inputs of the queries, `[query, ...]`.
        normalization_statistics: See `predict()`.

    Returns:
        The predictions, `[query, ...]`.
    """
    if normalization_statistics == "support":
        mask = normalization.statistics_mask(network)
        state = masks.with_chosen(state, mask, statistics)
    predictions, _ = forward(
        network,
        weights,
        state,
        query_x,
        training=False,
        batch_statistics=normalization_statistics == "batch",
    )
    return predictions


def seed_variables(network):
    """Returns the states of the random generators of `network`, as a list."""
    return [
        variable
        for variable in network.non_trainable_variables
        if variable.name == "seed_generator_state"
    ]


def draw_task_seeds(network, tasks):
    """Draws a seed for every random generator and task, and moves on.

    Args:
        network: A built `keras.Model`.
        tasks: Integer tensor, the number of tasks.

    Returns:
        A list of tensors `[tasks, 2]`, one for each of `seed_variables()`.
    """
    seeds = []
    for variable in seed_variables(network):
        state = tf.convert_to_tensor(variable)
        draw = functools.partial(_draw_seeds, state)
        seeds.append(replicas.own_share(draw, tasks))
        variable.assign(state + 1)
    return seeds


def _draw_seeds(state, tasks):
    return tf.random.stateless_uniform(
        [tasks, 2],
        seed=tf.cast(state, tf.int64),
        minval=None,
        maxval=None,
        dtype=state.dtype,
    )


def network_weights(network):
    """Returns the tensors of `network.trainable_variables`, as a list."""
    # Not `value`, which mixed precision would round to half precision inside
    # `model(x)`: small inner steps would be lost.
    return [
        tf.convert_to_tensor(variable._value)
        for variable in network.trainable_variables
    ]


def network_state(network, seeds=()):
    """Returns the tensors of `network.non_trainable_variables` for one task.

    Args:
        network: A built `keras.Model`.
        seeds: One task's part of `draw_task_seeds()`; empty where nothing
            random runs.

    Returns:
        List of tensors.
    """
    seed_of = {
        id(variable): seed
        for variable, seed in zip(seed_variables(network), seeds)
    }
    return [
        seed_of.get(id(variable), tf.convert_to_tensor(variable))
        for variable in network.non_trainable_variables
    ]
