import keras


def copy_network(network, examples, weights, state):
    """Returns a copy of a network with other weights.

    Args:
        network: A built `keras.Model`.
        examples: Input of the network, to build a copy that does not know
            the shape.
        weights: List of tensors, for `network.trainable_variables`.
        state: List of tensors, for `network.non_trainable_variables`.

    Returns:
        A `keras.Model`.
    """
    copy = keras.models.clone_model(network)
    if not copy.built:
        copy(examples)
    # A copy may not know which of its layers are frozen, so that only the
    # order of all variables is the same.
    originals = network.trainable_variables + network.non_trainable_variables
    values = [*weights, *state]
    value_of = {id(v): value for v, value in zip(originals, values)}
    for variable, original in zip(copy.variables, network.variables):
        variable.assign(value_of[id(original)])
    return copy
