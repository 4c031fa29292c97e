"""The inner loop: from a support set to adapted weights. It exists once.

Everything here is a pure function of tensors. The network lends its layers;
its variables are neither read nor written, so that one network serves any
number of tasks side by side, and gradients flow through the whole loop.
"""

import collections
import functools

import keras
import tensorflow as tf

from keras_meta import normalization

Adaptation = collections.namedtuple(
    "Adaptation", ["weights_per_step", "support_losses", "states"]
)


def forward(network, weights, state, x, training, batch_statistics):
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
    with normalization.episodic(network, batch_statistics), scope:
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
    training=False,
    normalization_statistics="batch",
    at_step=None,
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
        training: Boolean. Whether dropout and its like are on.
        normalization_statistics: One of `"batch"`, `"support"`, `"frozen"`;
            see `keras_meta.MAML`.
        at_step: Function `(step, weights, state)` that returns the weights
            and the state that the network is called with at a step. `None`
            (the default) means just these.

    Returns:
        An `Adaptation`: `weights_per_step`, a list of `steps + 1` lists of
        tensors, the weights before the first and after each step;
        `support_losses`, the list of the losses before each of the `steps`
        steps; and `states`, the list of the states after these.
    """
    if adapting is None:
        adapting = [True] * len(weights)
    start = _chosen(weights, adapting)
    batch_statistics = normalization_statistics != "frozen"

    def take_step(step, weights, rule_state, state):
        x, y, weight = _batch(support, batches, step)
        moving = _chosen(weights, adapting)
        with tf.GradientTape() as inner_tape:
            inner_tape.watch(moving)
            all_weights = _with_chosen(weights, adapting, moving)
            if at_step is not None:
                all_weights, state = at_step(step, all_weights, state)
            predictions, state = forward(
                network, all_weights, state, x, training, batch_statistics
            )
            support_loss = mean_loss(loss, y, predictions, weight)
        gradients = inner_tape.gradient(
            support_loss, moving, unconnected_gradients="zero"
        )
        # An embedding, and a map over a single task, give slices instead.
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if proximity:
            gradients = [
                gradient + proximity * (weight - anchor)
                for gradient, weight, anchor in zip(gradients, moving, start)
            ]
        if step < constant_steps:
            gradients = [tf.stop_gradient(gradient) for gradient in gradients]
        moving, rule_state = update_rule.call(
            moving, gradients, rule_state, step
        )
        weights = _with_chosen(weights, adapting, moving)
        return weights, rule_state, state, support_loss

    if recompute:
        take_step = _recomputing(take_step)
    weights = list(weights)
    weights_per_step, support_losses, states = [weights], [], []
    rule_state = update_rule.initial_state(start)
    for step in range(steps):
        weights, rule_state, state, support_loss = take_step(
            step, weights, rule_state, state
        )
        weights_per_step.append(weights)
        support_losses.append(support_loss)
        states.append(state)
    return Adaptation(weights_per_step, support_losses, states)


def _chosen(items, chosen):
    return [item for item, is_chosen in zip(items, chosen) if is_chosen]


def _with_chosen(items, chosen, replacements):
    """Returns `items`, the chosen ones replaced."""
    replacements = iter(replacements)
    return [
        next(replacements) if is_chosen else item
        for item, is_chosen in zip(items, chosen)
    ]


def _batch(support, batches, step):
    if batches is None:
        return support
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else tf.gather(leaf, batches[step]),
        support,
    )


def _recomputing(take_step):
    """Wraps a step so that a gradient through it computes it again.

    Not `tf.recompute_grad()`, which stops all tapes while it runs a function
    for the first time, the tape of the inner step, too.
    """

    def recomputing_step(step, *arguments):
        flat = tf.nest.flatten(arguments)
        # Only floating numbers have a gradient.
        floating = [part.dtype.is_floating for part in flat]
        structure = []

        def compute(floats):
            parts = _with_chosen(flat, floating, floats)
            return take_step(step, *tf.nest.pack_sequence_as(arguments, parts))

        @tf.custom_gradient
        def flat_step(*floats):
            results = compute(floats)
            structure.append(results)
            return tf.nest.flatten(results), functools.partial(pull, floats)

        def pull(floats, *upstream, variables=()):
            upstream = [
                tf.zeros_like(result) if gradient is None else gradient
                for gradient, result in zip(
                    upstream, tf.nest.flatten(structure[0])
                )
            ]
            # Or TensorFlow finds that it has all of this already.
            late = _zero_after(upstream)
            floats = [value + tf.cast(late, value.dtype) for value in floats]
            with tf.GradientTape() as tape:
                tape.watch(floats)
                results = tf.nest.flatten(compute(floats))
            gradients = tape.gradient(
                [r for r in results if r.dtype.is_floating],
                [*floats, *variables],
                [u for u, r in zip(upstream, results) if r.dtype.is_floating],
                unconnected_gradients="zero",
            )
            of_floats = gradients[: len(floats)]
            return (
                (of_floats, gradients[len(floats) :])
                if variables
                else of_floats
            )

        results = flat_step(*_chosen(flat, floating))
        return tf.nest.pack_sequence_as(structure[0], results)

    return recomputing_step


def _zero_after(tensors):
    """Returns a zero that is not known to be one before `tensors` are."""
    firsts = [
        tf.cast(tf.reshape(tensor, [-1])[0], tf.float32)
        for tensor in tensors
        if tensor.dtype.is_floating
    ]
    total = tf.add_n(firsts)
    return tf.where(tf.equal(total, total), 0.0, float("nan"))


def predict(
    network,
    weights,
    state,
    support_x,
    query_x,
    training=False,
    normalization_statistics="batch",
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

    Returns:
        The predictions, `[query, ...]`.
    """
    if normalization_statistics == "support":
        state = support_statistics(network, weights, state, support_x)
    predictions, _ = forward(
        network,
        weights,
        state,
        query_x,
        training,
        batch_statistics=normalization_statistics == "batch",
    )
    return predictions


def support_statistics(network, weights, state, support_x):
    """Returns `state` with batch normalization's statistics of a support set.

    Args:
        network: A built `keras.Model`.
        weights: List of tensors, for `network.trainable_variables`.
        state: List of tensors, for `network.non_trainable_variables`.
        support_x: Inputs of the support set, `[support, ...]`.

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
    )
    return state


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
        seeds.append(
            tf.random.stateless_uniform(
                [tasks, 2],
                seed=tf.cast(state, tf.int64),
                minval=None,
                maxval=None,
                dtype=state.dtype,
            )
        )
        variable.assign(state + 1)
    return seeds


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
