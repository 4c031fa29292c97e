import keras
import tensorflow as tf

from keras_meta import episode


def export_saved_model(model, filepath, **kwargs):
    """Writes a SavedModel with the signature `adapt_and_predict`.

    Args:
        model: A `keras_meta.EpisodicModel`.
        filepath: String or path, the folder to write.
        **kwargs: Arguments of `keras.export.ExportArchive.write_out()`.
    """

    def adapt_and_predict(support_x, support_y, query_x):
        return model(
            {
                episode.SUPPORT_X: support_x,
                episode.SUPPORT_Y: support_y,
                episode.QUERY_X: query_x,
            },
            training=False,
        )

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "adapt_and_predict",
        adapt_and_predict,
        input_signature=[
            _input_signature(model.network, episode.SUPPORT_X),
            _label_signature(model),
            _input_signature(model.network, episode.QUERY_X),
        ],
    )
    archive.write_out(filepath, **kwargs)


def _input_signature(network, name):
    """Returns a `tf.TensorSpec` `[tasks, examples, ...]` of the inputs."""
    inputs = getattr(network, "input", None)
    if inputs is None:
        config = network.get_build_config() or {}
        shape = config.get("input_shape")
        if shape is None:
            raise ValueError(
                "The network must know the shape of its input. Received: "
                f"network={network!r}, which does not. "
                "Build it with `network.build(input_shape)`, or give it a "
                "`keras.Input`."
            )
        inputs = keras.KerasTensor(shape)
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        inputs = inputs[0]
    if not isinstance(inputs, keras.KerasTensor):
        # A structure of inputs goes by the name of each leaf.
        return tf.nest.map_structure(
            lambda leaf: _with_free_axes(leaf, f"{name}_{leaf.name}"), inputs
        )
    return _with_free_axes(inputs, name)


def _with_free_axes(tensor, name):
    return tf.TensorSpec((None, None, *tensor.shape[1:]), tensor.dtype, name)


def _label_signature(model):
    """Returns a `tf.TensorSpec` `[tasks, support, ...]` of the labels."""
    if model.takes_integer_labels:
        return tf.TensorSpec((None, None), "int32", episode.SUPPORT_Y)
    if not model.targets_like_outputs:
        return tf.TensorSpec(None, "float32", episode.SUPPORT_Y)
    return tf.nest.map_structure(
        lambda leaf: _with_free_axes(leaf, episode.SUPPORT_Y),
        output_spec(model.network),
    )


def output_spec(network):
    """Returns the `keras.KerasTensor` of a built network's outputs.

    It is `None` where the network does not know the shape of its input.
    """
    output = getattr(network, "output", None)
    if output is not None:
        return output
    config = network.get_build_config() or {}
    if "input_shape" not in config:
        return None
    inputs = keras.tree.map_shape_structure(
        keras.KerasTensor, config["input_shape"]
    )
    return network.compute_output_spec(inputs)
