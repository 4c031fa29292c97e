import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory

from keras_meta import warmup_requests
from tests import small_models
from tests import test_docs

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "serving.md"

# The messages of TensorFlow Serving that a warm-up file is made of, as
# `prediction_log.proto`, `predict.proto` and `model.proto` number them: the
# names of fields, their numbers and types.
MESSAGES = {
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "Input": {"key": (1, "string"), "value": (2, "tensorflow.TensorProto")},
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "repeated Input"),
    },
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}


@pytest.fixture(scope="module")
def prediction_log():
    """The class of the messages, made by protobuf and not by this package."""
    file = descriptor_pb2.FileDescriptorProto(
        name="serving.proto", package="serving", syntax="proto3"
    )
    file.dependency.append("tensorflow/core/framework/tensor.proto")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = added.LABEL_OPTIONAL
            if kind.startswith("repeated "):
                kind = kind.removeprefix("repeated ")
                added.label = added.LABEL_REPEATED
            if kind == "string":
                added.type = added.TYPE_STRING
            else:
                added.type = added.TYPE_MESSAGE
                package = "" if "." in kind else ".serving"
                added.type_name = f"{package}.{kind}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("serving.PredictionLog")
    )


def requests_in(path, prediction_log):
    """Returns the inputs of the requests of a file by their signatures."""
    found = {}
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name
        found[request.model_spec.signature_name] = {
            entry.key: tf.make_ndarray(entry.value) for entry in request.inputs
        }
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported")
    small_models.make_model("PrototypicalNetwork").export(path, verbose=False)
    return path


def test_a_server_finds_requests_that_its_signatures_take(
    exported, prediction_log
):
    path = exported / "assets.extra" / "tf_serving_warmup_requests"
    requests = requests_in(path, prediction_log)
    assert set(requests) == {"adapt_and_predict", "adapt", "predict"}
    signatures = tf.saved_model.load(exported).signatures
    for name, inputs in requests.items():
        specs = signatures[name].structured_input_signature[1]
        assert set(inputs) == set(specs)
        for key, value in inputs.items():
            assert tf.as_dtype(value.dtype) == specs[key].dtype
        for output in signatures[name](
            **{key: tf.constant(value) for key, value in inputs.items()}
        ).values():
            assert np.all(np.isfinite(output))


def test_large_tensors_and_texts_are_written_as_they_are(
    tmp_path, prediction_log
):
    # Lengths of one, two and three bytes.
    inputs = {
        "few": tf.constant([1.0]),
        "some": tf.reshape(tf.range(100.0), [10, 10]),
        "many": tf.range(20_000, dtype="int32"),
        "texts": tf.constant([["good", "day"]]),
    }
    warmup_requests.write(tmp_path, {"adapt": inputs})
    requests = requests_in(tmp_path / warmup_requests.FILE, prediction_log)
    assert list(requests) == ["adapt"]
    for name, value in inputs.items():
        np.testing.assert_array_equal(requests["adapt"][name], value)


def test_nothing_is_written_where_there_is_no_request(tmp_path):
    warmup_requests.write(tmp_path, {})
    assert not list(tmp_path.iterdir())


def bodies(page):
    """Returns the JSON of requests that a page shows, as dictionaries."""
    blocks = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    found = [json.loads(block) for block in blocks]
    return {
        body["signature_name"]: body["inputs"]
        for body in found
        if "signature_name" in body
    }


def test_bodies_of_the_docs_adapt_and_predict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    _, code = test_docs.python_blocks(text)[0]
    exec(code, {})
    signatures = tf.saved_model.load("learner/1").signatures
    found = bodies(text)
    assert set(found) == {"adapt_and_predict", "adapt", "predict"}

    def ask(name, inputs):
        specs = signatures[name].structured_input_signature[1]
        # As a server reads them: by the dtypes of the signature.
        return signatures[name](
            **{
                key: tf.constant(value, specs[key].dtype)
                for key, value in inputs.items()
            }
        )

    at_once = ask("adapt_and_predict", found["adapt_and_predict"])["output_0"]
    assert ask("predict", found["predict"])["output_0"].shape == (1, 2, 2)
    # What a client does: it puts the state where the page has some numbers.
    state = ask("adapt", found["adapt"])["task_state"].numpy().tolist()
    in_steps = ask("predict", {**found["predict"], "task_state": state})
    np.testing.assert_allclose(in_steps["output_0"], at_once, rtol=1e-6)
