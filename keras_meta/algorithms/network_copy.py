import keras

from keras_meta import episode
from keras_meta import inner_loop


def copy_network(network, task, weights, state, normalization_statistics):
    """Returns a copy of a network with the weights of one task.

    Its batch normalization holds the statistics of the support set, also
    where those of the batch at hand are used, which an ordinary Keras model
    does not do in `predict()`.

    Args:
        network: A built `keras.Model`.
        task: Dictionary with the support set of one task.
        weights: List of tensors, for `network.trainable_variables`.
        state: List of tensors, for `network.non_trainable_variables`.
        normalization_statistics: String; see `keras_meta.MAML`.

    Returns:
        A `keras.Model`.
    """
    examples = task[episode.SUPPORT_X]
    if normalization_statistics in ("batch", "support"):
        state = inner_loop.support_statistics(
            network,
            weights,
            state,
            examples,
            task.get(episode.SUPPORT_WEIGHT),
        )
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
