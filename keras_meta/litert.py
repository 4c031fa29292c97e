import contextlib
import os
import tempfile
import unittest.mock

import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta import export
from keras_meta import inner_steps
from keras_meta import whole_files
from keras_meta.algorithms.base import EpisodicModel
from keras_meta.algorithms.base import check_is_model


def export_litert(
    model,
    filepath,
    supports=None,
    queries=1,
    preprocessing=None,
):
    """Writes a file for LiteRT (TensorFlow Lite), which runs on a device.

    Of the model of one task, which `adapt()` gives, the file holds the
    signature `predict`, from `query_x` `[queries, ...]` to predictions. Of a
    model that learns new tasks it holds two, so that the device adapts by
    itself: `adapt`, from `support_x` `[1, supports, ...]` and `support_y`
    `[1, supports]` to `task_state` `[1, size]`, and `predict`, from that and
    `query_x` `[1, queries, ...]` to predictions. Sizes are fixed: a device
    sets its memory aside beforehand. Requests are not checked.

    Args:
        model: A `keras_meta.EpisodicModel`, or any `keras.Model` that knows
            the shape of its input, such as `adapt()` gives.
        filepath: String or path, the file to write, `.tflite` by custom.
        supports: Integer, the size of the support set; for an episodic model
            only, which needs it.
        queries: Integer, how many queries are answered at a time. Defaults
            to `1`.
        preprocessing: Optional `keras.Model` from a batch of raw examples to
            what the network takes; `support_x` and `query_x` are then raw.

    Raises:
        ValueError, TypeError: Where an argument is not as described, or the
            model has operations that LiteRT lacks.

    Example:

    ```python
    model = keras_meta.PrototypicalNetwork(keras_meta.backbones.mlp((4,)))
    keras_meta.export_litert(model, "learner.tflite", supports=6)

    support_x = np.random.normal(size=(6, 4)).astype("float32")
    adapted = model.adapt(support_x, [0, 1, 0, 1, 0, 1])
    keras_meta.export_litert(adapted, "classifier.tflite")
    ```
    """
    check_is_model("model", model)
    arguments.check_positive_integer("queries", queries)
    if preprocessing is not None:
        check_is_model("preprocessing", preprocessing)
    if isinstance(model, EpisodicModel) and supports is None:
        raise ValueError(
            "`supports` must be given for a model that learns new tasks: the "
            "sizes of a file for a device are fixed. Received: supports=None. "
            "Pass the size of the support set, such as `supports=25`."
        )
    with _in_operations_of_litert():
        signatures = _signatures(model, preprocessing, supports, queries)
    contents = _converted(model, preprocessing, signatures)
    with whole_files.writing(os.fspath(filepath)) as file:
        file.write(contents)


def _signatures(model, preprocessing, supports, queries):
    """Returns traced functions by name."""
    if isinstance(model, EpisodicModel):
        arguments.check_positive_integer("supports", supports)
        found = export.endpoints(
            model, preprocessing, tasks=1, supports=supports, queries=queries
        )
        del found[export.ADAPT_AND_PREDICT]
    else:
        found = export.endpoint_of_task(model, preprocessing, queries)
    return {
        name: tf.function(
            endpoint.function, input_signature=endpoint.signature
        ).get_concrete_function()
        for name, endpoint in found.items()
    }


def _converted(model, preprocessing, signatures):
    """Returns the bytes of the file."""
    module = tf.Module()
    module.held = [
        variable.value
        for held in (model, preprocessing)
        if held is not None
        for variable in held.variables
    ]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(signatures)
        )
        try:
            return converter.convert()
        except Exception as error:
            raise ValueError(
                "The model must only have operations of LiteRT. Received: "
                f"{model!r}, which has others. Adapt elsewhere, and export "
                f"what `adapt()` gives. The converter says: {error}"
            ) from error


# The same functions of other operations: where a comment stands, LiteRT lacks
# an operation or computes another one in its place.


@contextlib.contextmanager
def _in_operations_of_litert():
    with (
        unittest.mock.patch.object(tf.nn, "relu", _relu),
        unittest.mock.patch.object(tf.math, "l2_normalize", _l2_normalize),
        unittest.mock.patch.object(
            keras.layers.UnitNormalization, "call", _unit_normalization
        ),
        # There are no functions that stay apart.
        unittest.mock.patch.object(inner_steps, "apart", lambda step: step),
    ):
        yield


def _relu(x, name=None):
    # There is no gradient of the operation.
    x = tf.convert_to_tensor(x)
    return tf.where(x > 0, x, tf.zeros_like(x), name=name)


def _l2_normalize(x, axis=None, epsilon=1e-12, name=None):
    # With the limit below the root, the converter would leave it out: what
    # is 0 would become NaN.
    squares = tf.reduce_sum(tf.square(x), axis=axis, keepdims=True)
    return tf.divide(x, tf.maximum(tf.sqrt(squares), epsilon**0.5), name=name)


def _unit_normalization(self, inputs):
    return _l2_normalize(inputs, self.axis)
