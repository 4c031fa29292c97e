"""The requests that TensorFlow Serving warms up a SavedModel with.

A server answers them before it takes over a model, so that the first client
does not wait for what is only done once. They are a file of TFRecords, each a
`PredictionLog` of TensorFlow Serving's protocol. Its few messages are written
here: the package that has them, tensorflow-serving-api, is a heavy dependency
for a file of some hundred bytes.
"""

import os

import tensorflow as tf

FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")

# The fields that are written, by message: `prediction_log.proto`,
# `predict.proto` and `model.proto` of TensorFlow Serving.
_PREDICTION_LOG_PREDICT_LOG = 6
_PREDICT_LOG_REQUEST = 1
_REQUEST_MODEL_SPEC, _REQUEST_INPUTS = 1, 2
_MODEL_SPEC_NAME, _MODEL_SPEC_SIGNATURE_NAME = 1, 3
_MAP_KEY, _MAP_VALUE = 1, 2


def write(filepath, requests):
    """Writes the requests into a SavedModel.

    Args:
        filepath: String or path, the folder of the SavedModel.
        requests: Dictionary from the names of signatures to dictionaries of
            their inputs, tensors by name. Where it is empty, nothing is
            written.
    """
    path = os.path.join(os.fspath(filepath), FILE)
    if not requests:
        return
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for signature, inputs in requests.items():
            writer.write(_prediction_log(signature, inputs))


def _prediction_log(signature, inputs):
    # A server asks the model at hand, whatever the name says.
    model_spec = _field(_MODEL_SPEC_NAME, b"model")
    model_spec += _field(_MODEL_SPEC_SIGNATURE_NAME, signature.encode())
    request = _field(_REQUEST_MODEL_SPEC, model_spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        entry = _field(_MAP_KEY, name.encode()) + _field(_MAP_VALUE, tensor)
        request += _field(_REQUEST_INPUTS, entry)
    log = _field(_PREDICT_LOG_REQUEST, request)
    return _field(_PREDICTION_LOG_PREDICT_LOG, log)


def _field(number, content):
    """Returns a field that holds bytes, a string or a message."""
    with_length = 2
    return _varint(number << 3 | with_length) + _varint(len(content)) + content


def _varint(number):
    """Returns a number in bytes of 7 bits, the lowest first."""
    more = []
    while number > 127:
        more.append(number & 127 | 128)
        number >>= 7
    return bytes([*more, number])
