"""Dense layers on embeddings: the head of one task's classifier."""

import keras
import tensorflow as tf

from keras_meta import export


def with_new_head(network, outputs):
    """Returns `network` with a dense layer, whose weights come last.

    Args:
        network: A built `keras.Model` from examples to flat embeddings.
        outputs: Integer, the size of the layer.

    Returns:
        A `keras.Model` that shares the layers of `network`.

    Raises:
        ValueError: Where the embeddings are not flat.
    """
    embedding_size(network)
    head = keras.layers.Dense(outputs, name="head")
    if getattr(network, "inputs", None):
        inputs, embeddings = ends(network)
        return keras.Model(inputs, head(embeddings))
    whole = keras.Sequential([network, head])
    whole.build(network.get_build_config()["input_shape"])
    return whole


def ends(network):
    """Returns the symbolic inputs and outputs of a network of layers.

    `input` and `output` of a `keras.Sequential` are those of its first call
    as a layer of another model, if there was any.
    """
    if isinstance(network, keras.Sequential):
        return network.inputs[0], network.outputs[0]
    return network.input, network.output


def embedding_size(network):
    """Checks that a network gives flat embeddings; returns their size."""
    spec = export.output_spec(network)
    if tf.nest.is_nested(spec) or len(spec.shape) != 2:
        raise ValueError(
            "The network must give one flat embedding, `[batch, size]`. "
            f"Received: a network with outputs {spec}. Add a "
            "`keras.layers.Flatten`."
        )
    return spec.shape[1]


def places(variables, among):
    """Returns where each of `variables` is in the list `among`."""
    places_of = {id(variable): place for place, variable in enumerate(among)}
    return [places_of[id(variable)] for variable in variables]


def copy_embedding(network):
    """Copies a network of layers, for a model that grows out of it.

    Args:
        network: A built `keras.Model` that knows its inputs.

    Returns:
        A tuple of symbolic tensors: the inputs, and the embeddings.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    inputs = tf.nest.map_structure(
        lambda leaf: keras.Input(
            batch_shape=leaf.shape, dtype=leaf.dtype, name=leaf.name
        ),
        ends(copy)[0],
    )
    return inputs, copy(inputs)


def with_head(inputs, embeddings, kernel, bias, dtype):
    """Returns a model that ends in a dense layer of the given weights."""
    head = keras.layers.Dense(len(bias), dtype=dtype, name="head")
    model = keras.Model(inputs, head(embeddings))
    head.set_weights([kernel, bias])
    return model
