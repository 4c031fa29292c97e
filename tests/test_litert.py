import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests import lite_files
from tests import small_models
from tests.algorithms import contract

# That algorithms adapt on a device is in `test_saving_table.py`.


def images(tasks, examples, size=28):
    generator = np.random.default_rng(0)
    shape = (tasks, examples, size, size, 1)
    return generator.uniform(size=shape).astype("float32")


def test_a_convolutional_network_adapts_by_prototypes(tmp_path):
    network = keras_meta.backbones.conv4((28, 28, 1), filters=4)
    model = keras_meta.PrototypicalNetwork(network, ways=2)
    path = tmp_path / "learner.tflite"
    keras_meta.export_litert(model, path, supports=4, queries=3)
    support_x, query_x = images(1, 4), images(1, 3)
    support_y = np.array([[0, 1, 0, 1]], "int32")
    state = lite_files.run(
        path, "adapt", support_x=support_x, support_y=support_y
    )["task_state"]
    answer = lite_files.answer(
        path, "predict", task_state=state, query_x=query_x
    )
    expected = model(
        {"support_x": support_x, "support_y": support_y, "query_x": query_x}
    )
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)


def test_an_adapted_convolutional_network_runs_with_its_preprocessing(tmp_path):
    network = keras_meta.backbones.conv4((28, 28, 1), outputs=2, filters=4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras_meta.MAML(network, inner_loss=loss)
    adapted = model.adapt(images(1, 4)[0], [0, 1, 0, 1])
    preprocessing = keras.Sequential(
        [
            keras.Input((32, 24, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Resizing(28, 28),
        ]
    )
    path = tmp_path / "classifier.tflite"
    keras_meta.export_litert(
        adapted, path, queries=2, preprocessing=preprocessing
    )
    raw = np.random.default_rng(0).integers(0, 256, (2, 32, 24, 1), "uint8")
    answer = lite_files.answer(path, "predict", query_x=raw)
    expected = adapted(preprocessing(raw))
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)


def test_embeddings_of_zeros_stay_zeros(tmp_path):
    # The converter's own normalization would make NaN of them.
    network = keras.Sequential([keras.Input((8,)), keras.layers.ReLU()])
    model = keras_meta.PrototypicalNetwork(network, distance="cosine")
    x, _ = contract.first_batch()
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    path = tmp_path / "classifier.tflite"
    keras_meta.export_litert(adapted, path, queries=2)
    queries = -np.ones((2, 8), "float32")
    answer = lite_files.answer(path, "predict", query_x=queries)
    np.testing.assert_allclose(answer, adapted(queries), atol=1e-6)


def test_reptile_adapts_by_gradient_descent(tmp_path):
    model = keras_meta.Reptile(
        small_models.classifier(),
        update_rule=keras_meta.update_rules.GradientDescent(0.01),
        inner_loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        task_mapping="sequential",
    )
    path = tmp_path / "learner.tflite"
    keras_meta.export_litert(model, path, supports=6, queries=12)
    x, _ = contract.first_batch()
    one = {key: value[:1] for key, value in x.items()}
    state = lite_files.run(
        path, "adapt", support_x=one["support_x"], support_y=one["support_y"]
    )["task_state"]
    answer = lite_files.answer(
        path, "predict", task_state=state, query_x=one["query_x"]
    )
    np.testing.assert_allclose(answer, model(one), rtol=1e-4, atol=1e-4)


def test_what_is_patched_for_the_conversion_is_as_before(tmp_path):
    relu, normalize = tf.nn.relu, tf.math.l2_normalize
    unit = keras.layers.UnitNormalization.call
    model = small_models.make_model("PrototypicalNetwork")
    keras_meta.export_litert(model, tmp_path / "a.tflite", supports=6)
    assert tf.nn.relu is relu and tf.math.l2_normalize is normalize
    assert keras.layers.UnitNormalization.call is unit


def convolutional_maml():
    network = keras_meta.backbones.conv4((8, 8, 1), outputs=2, filters=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return keras_meta.MAML(network, inner_loss=loss)


def long_reptile():
    network = small_models.classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return keras_meta.Reptile(network, inner_loss=loss, evaluation_steps=11)


@pytest.mark.parametrize(
    "make_model",
    [
        convolutional_maml,
        lambda: small_models.make_model("RidgeHead"),
        long_reptile,
    ],
    ids=["gradients of convolutions", "linear equations", "Adam in a loop"],
)
def test_says_what_cannot_run_and_leaves_no_file(make_model, tmp_path):
    model = make_model()
    with pytest.raises(ValueError, match="Adapt elsewhere, and export what"):
        keras_meta.export_litert(model, tmp_path / "a.tflite", supports=6)
    assert not list(tmp_path.iterdir())


def test_refuses_wrong_arguments(tmp_path):
    model = small_models.make_model("PrototypicalNetwork")
    path = tmp_path / "a.tflite"
    with pytest.raises(ValueError, match="`supports` must be given"):
        keras_meta.export_litert(model, path)
    with pytest.raises(ValueError, match="`queries` must be"):
        keras_meta.export_litert(model, path, supports=6, queries=0)
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`"):
        keras_meta.export_litert("model.keras", path)
    with pytest.raises(TypeError, match="`preprocessing` must be"):
        keras_meta.export_litert(
            model, path, supports=6, preprocessing=np.square
        )
