"""Models as files that adapt without this package: what they compute."""

import collections

import keras
import numpy as np
import tensorflow as tf

from keras_meta import episode
from keras_meta import flat_states
from keras_meta import graph_checks
from keras_meta import warmup_requests

ADAPT_AND_PREDICT = "adapt_and_predict"
ADAPT = "adapt"
PREDICT = "predict"
TASK_STATE = "task_state"

Endpoint = collections.namedtuple("Endpoint", ["function", "signature"])
Endpoint.__doc__ = """A function of a file, and what it takes.

Attributes:
    function: Function of tensors.
    signature: List of structures of `tf.TensorSpec`, its arguments.
"""


def export_saved_model(
    model, filepath, preprocessing=None, warmup=None, **kwargs
):
    """Writes a SavedModel that adapts, and answers, in its graph.

    Args:
        model: A `keras_meta.EpisodicModel`.
        filepath: String or path, the folder to write.
        preprocessing: Optional `keras.Model`, what becomes of inputs first.
        warmup: Optional meta-batch, for the requests that a server warms up
            with.
        **kwargs: Arguments of `keras.export.ExportArchive.write_out()`.
    """
    found = endpoints(model, preprocessing)
    archive = keras.export.ExportArchive()
    archive.track(model)
    if preprocessing is not None:
        archive.track(preprocessing)
    functions = {
        name: archive.add_endpoint(
            name, endpoint.function, input_signature=endpoint.signature
        )
        for name, endpoint in found.items()
    }
    requests = _warmup_requests(found, functions, warmup)
    archive.write_out(filepath, **kwargs)
    warmup_requests.write(filepath, requests)


def endpoints(
    model, preprocessing=None, tasks=None, supports=None, queries=None
):
    """Returns what a file of an episodic model computes.

    Args:
        model: A `keras_meta.EpisodicModel`.
        preprocessing: Optional `keras.Model`, what becomes of inputs first.
        tasks: Integer, the number of tasks, or `None` for any.
        supports: Integer, the support examples of a task, or `None` for any.
        queries: Integer, the queries of a task, or `None` for any.

    Returns:
        Dictionary from names to instances of `Endpoint`. There is
        `"adapt_and_predict"` always, and `"adapt"` and `"predict"` where what
        the model keeps of a task can be written as numbers.
    """
    takes = model.network if preprocessing is None else preprocessing
    support_spec = _input_signature(takes, episode.SUPPORT_X, tasks, supports)
    label_spec = _label_signature(model, tasks, supports)
    query_spec = _input_signature(takes, episode.QUERY_X, tasks, queries)
    ways = _ways(model) if model.takes_integer_labels else None

    def prepare(inputs):
        if preprocessing is None:
            return inputs
        return _for_each_example(preprocessing, inputs)

    # Traced once, for both endpoints that adapt.
    adapted = tf.function(
        lambda support_x, support_y: model.task_state(
            {
                episode.SUPPORT_X: prepare(support_x),
                episode.SUPPORT_Y: support_y,
            }
        ),
        input_signature=[support_spec, label_spec],
        autograph=False,
    )
    state_spec = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype),
        adapted.get_concrete_function().structured_outputs,
    )

    def adapt_to(support_x, support_y):
        support_x, support_y = graph_checks.of_shapes(
            [support_x, support_y], [support_spec, label_spec]
        )
        checks = [
            *graph_checks.not_empty(episode.SUPPORT_X, support_x),
            *graph_checks.same_sizes(
                "`support_x` and `support_y`", support_x, support_y, axes=2
            ),
            *graph_checks.at_most(
                episode.SUPPORT_X,
                support_x,
                getattr(model, "max_supports", None),
            ),
            *graph_checks.finite(episode.SUPPORT_X, support_x),
            *graph_checks.finite(episode.SUPPORT_Y, support_y),
        ]
        if model.takes_integer_labels:
            checks += graph_checks.class_numbers(
                episode.SUPPORT_Y, support_y, ways
            )
        return adapted(*graph_checks.checked([support_x, support_y], *checks))

    def answer(state, query_x):
        query_x = graph_checks.of_shapes(query_x, query_spec)
        query_x = graph_checks.checked(
            query_x,
            *graph_checks.not_empty(episode.QUERY_X, query_x),
            *graph_checks.same_sizes(
                "The support sets (or `task_state`) and `query_x`",
                state,
                query_x,
                axes=1,
            ),
            *graph_checks.finite(episode.QUERY_X, query_x),
        )
        return model.answer_from_state(state, prepare(query_x))

    def adapt_and_predict(support_x, support_y, query_x):
        return answer(adapt_to(support_x, support_y), query_x)

    dtype = model.variable_dtype

    def adapt(support_x, support_y):
        state = adapt_to(support_x, support_y)
        return {TASK_STATE: flat_states.flatten(state, dtype)}

    def predict(task_state, query_x):
        task_state = graph_checks.of_shapes(task_state, flat_spec)
        task_state = graph_checks.checked(
            task_state, *graph_checks.finite(TASK_STATE, task_state)
        )
        return answer(flat_states.unflatten(task_state, state_spec), query_x)

    found = {
        ADAPT_AND_PREDICT: Endpoint(
            adapt_and_predict, [support_spec, label_spec, query_spec]
        )
    }
    if flat_states.can_be_flat(state_spec):
        size = flat_states.flat_size(state_spec)
        flat_spec = tf.TensorSpec((tasks, size), dtype, TASK_STATE)
        found[ADAPT] = Endpoint(adapt, [support_spec, label_spec])
        found[PREDICT] = Endpoint(predict, [flat_spec, query_spec])
    return found


def endpoint_of_task(model, preprocessing=None, queries=None):
    """Returns what a file of the model of one task computes.

    Args:
        model: A `keras.Model`, such as `adapt()` gives.
        preprocessing: Optional `keras.Model`, what becomes of inputs first.
        queries: Integer, or `None` for any number.

    Returns:
        Dictionary from the name to an `Endpoint`, as `endpoints()`.
    """
    takes = model if preprocessing is None else preprocessing
    spec = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype, leaf.name),
        _input_signature(takes, episode.QUERY_X, examples=queries),
    )

    def predict(query_x):
        if preprocessing is not None:
            query_x = preprocessing(query_x, training=False)
        return model(query_x, training=False)

    return {PREDICT: Endpoint(predict, [spec])}


def _for_each_example(preprocessing, inputs):
    """Applies a model of examples to `[tasks, examples, ...]`."""
    counts = tf.shape(tf.nest.flatten(inputs)[0])[:2]
    flat = tf.nest.map_structure(
        lambda leaf: tf.reshape(
            leaf, tf.concat([[-1], tf.shape(leaf)[2:]], axis=0)
        ),
        inputs,
    )
    flat = tf.nest.map_structure(
        lambda leaf, like: tf.ensure_shape(leaf, [None, *like.shape[2:]]),
        flat,
        inputs,
    )
    prepared = preprocessing(flat, training=False)
    return tf.nest.map_structure(
        lambda leaf: tf.reshape(
            leaf, tf.concat([counts, leaf.shape[1:]], axis=0)
        ),
        prepared,
    )


def _warmup_requests(found, functions, warmup):
    """Returns requests by the names of the signatures that take them."""
    signature = found[ADAPT_AND_PREDICT].signature
    if warmup is not None:
        parts = [
            warmup[key]
            for key in (episode.SUPPORT_X, episode.SUPPORT_Y, episode.QUERY_X)
        ]
        parts = tf.nest.map_structure(tf.convert_to_tensor, parts)
    elif _is_known(signature):
        parts = tf.nest.map_structure(_example, signature)
    else:
        return {}
    requests = {ADAPT_AND_PREDICT: _by_name(signature, parts)}
    if ADAPT in found:
        # A request that fails would keep a server from loading the model.
        state = functions[ADAPT](*parts[:2])[TASK_STATE]
        functions[PREDICT](state, parts[2])
        requests[ADAPT] = _by_name(found[ADAPT].signature, parts[:2])
        requests[PREDICT] = _by_name(
            found[PREDICT].signature, [state, parts[2]]
        )
    return requests


def _is_known(signature):
    return all(
        spec.shape.rank is not None and spec.shape[2:].is_fully_defined()
        for spec in tf.nest.flatten(signature)
    )


def _example(spec):
    """Returns two made-up examples of a task."""
    shape = [1, 2, *spec.shape[2:]]
    if spec.dtype == tf.string:
        return tf.fill(shape, "warm up")
    if spec.dtype.is_floating:
        numbers = np.random.default_rng(0).uniform(size=shape)
        return tf.constant(numbers, spec.dtype)
    # Any network of classes has class 0, and any image pixels of 0.
    return tf.zeros(shape, spec.dtype)


def _by_name(signature, parts):
    specs, values = tf.nest.flatten(signature), tf.nest.flatten(parts)
    return {
        spec.name: tf.cast(value, spec.dtype)
        if value.dtype != spec.dtype
        else value
        for spec, value in zip(specs, values)
    }


def _input_signature(network, name, tasks=None, examples=None):
    """Returns a `tf.TensorSpec` `[tasks, examples, ...]` of the inputs."""
    inputs = getattr(network, "input", None)
    if inputs is None:
        # A `keras.Sequential` that was never called has but these.
        inputs = getattr(network, "inputs", None)
    if inputs is None:
        config = network.get_build_config() or {}
        shape = config.get("input_shape")
        if shape is None:
            raise ValueError(
                "The network (or `preprocessing`) must know the shape of its "
                f"input. Received: {network!r}, which does not. Build it with "
                "`build(input_shape)`, or give it a `keras.Input`."
            )
        inputs = keras.KerasTensor(shape)
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        inputs = inputs[0]
    axes = (tasks, examples)
    if not isinstance(inputs, keras.KerasTensor):
        # A structure of inputs goes by the name of each leaf.
        return tf.nest.map_structure(
            lambda leaf: _with_axes(leaf, f"{name}_{leaf.name}", *axes), inputs
        )
    return _with_axes(inputs, name, *axes)


def _with_axes(tensor, name, tasks, examples):
    shape = (tasks, examples, *tensor.shape[1:])
    return tf.TensorSpec(shape, tensor.dtype, name)


def _label_signature(model, tasks=None, supports=None):
    """Returns a `tf.TensorSpec` `[tasks, support, ...]` of the labels."""
    if model.takes_integer_labels:
        return tf.TensorSpec((tasks, supports), "int32", episode.SUPPORT_Y)
    if not model.targets_like_outputs:
        return tf.TensorSpec(None, "float32", episode.SUPPORT_Y)
    return tf.nest.map_structure(
        lambda leaf: _with_axes(leaf, episode.SUPPORT_Y, tasks, supports),
        output_spec(model.network),
    )


def _ways(model):
    """Returns the number of classes, `None` where it differs by task."""
    if hasattr(model, "ways"):
        return model.ways
    return tf.nest.flatten(output_spec(model.network))[0].shape[-1]


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
