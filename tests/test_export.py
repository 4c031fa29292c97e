import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import warmup_requests
from tests import small_models
from tests.algorithms import contract


def glyph_like_model(statistics="batch"):
    model = keras_meta.MAML(
        keras_meta.backbones.conv4((8, 8, 1), outputs=3, filters=4),
        inner_steps=2,
        inner_learning_rate=0.1,
        normalization_statistics=statistics,
    )
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def episode(tasks, support, query):
    generator = np.random.default_rng(0)
    return {
        "support_x": generator.normal(size=(tasks, support, 8, 8, 1)).astype(
            "float32"
        ),
        "support_y": generator.integers(0, 3, (tasks, support)).astype("int32"),
        "query_x": generator.normal(size=(tasks, query, 8, 8, 1)).astype(
            "float32"
        ),
    }


def answer_in_two_steps(signatures, x):
    state = signatures["adapt"](
        support_x=x["support_x"], support_y=x["support_y"]
    )["task_state"]
    (answer,) = signatures["predict"](
        task_state=state, query_x=x["query_x"]
    ).values()
    return answer


def test_loads_without_this_package_and_takes_any_sizes(tmp_path):
    model = glyph_like_model()
    model.export(tmp_path / "exported", verbose=False)
    sizes = [(1, 3, 5), (4, 6, 2)]
    for number, size in enumerate(sizes):
        x = episode(*size)
        np.savez(tmp_path / f"{number}.npz", answer=model(x), **x)
    program = """
        import sys
        import numpy as np
        import tensorflow as tf

        loaded = tf.saved_model.load(sys.argv[1] + "/exported")
        endpoint = loaded.signatures["adapt_and_predict"]
        names = set(endpoint.structured_input_signature[1])
        assert names == {"support_x", "support_y", "query_x"}, names
        for number in range(2):
            x = dict(np.load(f"{sys.argv[1]}/{number}.npz"))
            expected = x.pop("answer")
            (answer,) = endpoint(
                **{name: tf.constant(value) for name, value in x.items()}
            ).values()
            assert np.abs(answer - expected).max() < 1e-5
        assert "keras_meta" not in sys.modules
        """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path], check=True
    )


def test_signature_of_regression(tmp_path):
    model = keras_meta.MAML(
        keras_meta.backbones.mlp((2,), outputs=3), inner_loss="mse"
    )
    model.export(tmp_path / "exported", verbose=False)
    signature = tf.saved_model.load(tmp_path / "exported").signatures[
        "adapt_and_predict"
    ]
    specs = signature.structured_input_signature[1]
    assert specs["support_x"].shape.as_list() == [None, None, 2]
    assert specs["support_y"].shape.as_list() == [None, None, 3]
    assert specs["support_y"].dtype == "float32"
    (output,) = signature.structured_outputs.values()
    assert output.shape.as_list() == [None, None, 3]


def test_refuses_other_formats(tmp_path):
    with pytest.raises(ValueError, match="`format` must be one of"):
        glyph_like_model().export(tmp_path / "exported", format="onnx")
    assert not (tmp_path / "exported").exists()


def run_elsewhere(program, *arguments):
    """Runs a program where this package is not imported."""
    program = textwrap.dedent(program)
    program += '\nassert "keras_meta" not in sys.modules\n'
    subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], check=True
    )


@pytest.fixture(scope="module")
def exported_classifier(tmp_path_factory):
    """Gives the folder of a SavedModel of 3-way episodes of 8 features."""
    path = tmp_path_factory.mktemp("classifier") / "exported"
    small_models.make_model("PrototypicalNetwork").export(path, verbose=False)
    return path


@pytest.fixture(scope="module")
def exported_maml(tmp_path_factory):
    path = tmp_path_factory.mktemp("maml") / "exported"
    small_models.make_model("MAML").export(path, verbose=False)
    return path


def test_bad_requests_are_told_of_and_the_next_is_answered(exported_maml):
    # Each is wrong in one way; what the error must say stands beside it.
    run_elsewhere(
        """
        import sys
        import numpy as np
        import tensorflow as tf

        signatures = tf.saved_model.load(sys.argv[1]).signatures
        good = {
            "support_x": np.ones((2, 3, 8), "float32"),
            "support_y": np.array([[0, 1, 2]] * 2, "int32"),
            "query_x": np.ones((2, 4, 8), "float32"),
        }
        nan = np.full((2, 3, 8), np.nan, "float32")
        bad = [
            (dict(support_x=np.ones((3, 8), "float32")), "support_x|shape"),
            (dict(support_x=np.ones((2, 3, 7), "float32")), "support_x|shape"),
            (dict(support_x=np.ones((2, 3, 8), "int32")), "support_x|float"),
            (dict(support_y=good["support_y"] + 1), "from 0 to 2.*0.*3|1.*3"),
            (dict(support_y=good["support_y"] - 1), "from 0 to 2"),
            (
                dict(support_x=nan[:, :0], support_y=good["support_y"][:, :0]),
                "`support_x` must hold at least one",
            ),
            (dict(support_x=nan), "`support_x` must be finite"),
            (dict(query_x=nan), "`query_x` must be finite"),
            (dict(query_x=nan[:, :0]), "`query_x` must hold at least one"),
            (dict(query_x=np.ones((1, 4, 8), "float32")), "number of tasks"),
            (
                dict(support_y=good["support_y"][:, :2]),
                "same number of tasks and examples",
            ),
        ]
        import re

        def call(name, request):
            return signatures[name](
                **{key: tf.constant(value) for key, value in request.items()}
            )

        for wrong, message in bad:
            names = ["adapt_and_predict"]
            if "query_x" not in wrong:
                names.append("adapt")
            for name in names:
                request = {**good, **wrong}
                if name == "adapt":
                    del request["query_x"]
                try:
                    call(name, request)
                except (TypeError, tf.errors.InvalidArgumentError) as error:
                    assert re.search(message, str(error), re.DOTALL), error
                else:
                    raise AssertionError(f"{name} took {wrong}")
                (answer,) = call("adapt_and_predict", good).values()
                assert np.all(np.isfinite(answer))

        del good["query_x"]
        state = call("adapt", good)["task_state"].numpy()
        queries = np.ones((2, 4, 8), "float32")
        for wrong, message in (
            (state * np.nan, "`task_state` must be finite"),
            (state[:1], "number of tasks"),
            (state[:, 1:], "task_state|shape"),
        ):
            try:
                call("predict", dict(task_state=wrong, query_x=queries))
            except (TypeError, tf.errors.InvalidArgumentError) as error:
                assert re.search(message, str(error)), error
            else:
                raise AssertionError(f"predict took {message}")
        call("predict", dict(task_state=state, query_x=queries))
        """,
        exported_maml,
    )


def test_shapes_are_checked_where_a_server_does_not(exported_classifier):
    # A server runs the graph without a look at the signature's shapes.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(
            session, ["serve"], str(exported_classifier)
        )
        graph = session.graph.as_graph_def()
    kinds = {node.op for node in graph.node} | {
        node.op
        for function in graph.library.function
        for node in function.node_def
    }
    assert {"EnsureShape", "Assert"} <= kinds
    assert set(loaded.signature_def) >= {
        "adapt_and_predict",
        "adapt",
        "predict",
        "serving_default",
    }


def test_a_task_state_of_any_size_is_taken_apart_again(exported_classifier):
    model = small_models.make_model("SiameseNetwork")
    path = exported_classifier.parent / "siamese"
    model.export(path, verbose=False)
    signatures = tf.saved_model.load(path).signatures
    for shots in (1, 3):
        x, _ = next(iter(contract.blob_episodes(2, shots=shots)))
        answer = answer_in_two_steps(signatures, x)
        np.testing.assert_allclose(answer, model(x), rtol=1e-5, atol=1e-5)


def test_batch_normalization_is_that_of_the_support_set(tmp_path):
    model = glyph_like_model("support")
    model.export(tmp_path / "exported", verbose=False)
    signatures = tf.saved_model.load(tmp_path / "exported").signatures
    x = episode(2, 6, 4)
    state = signatures["adapt"](
        support_x=x["support_x"], support_y=x["support_y"]
    )["task_state"]
    # One query at a time, which the others must not change.
    for query in range(4):
        (answer,) = signatures["predict"](
            task_state=state, query_x=x["query_x"][:, query : query + 1]
        ).values()
        np.testing.assert_allclose(
            answer[:, 0], model(x)[:, query], rtol=1e-5, atol=1e-5
        )


def test_an_own_algorithm_has_both_ways_without_a_hook(tmp_path):
    class Nearest(keras_meta.EpisodicModel):
        takes_integer_labels = True

        def call(self, x, training=False):
            apart = x["query_x"][:, :, None] - x["support_x"][:, None]
            nearness = -tf.reduce_sum(tf.square(apart), axis=-1)
            return tf.matmul(nearness, tf.one_hot(x["support_y"], 3))

    model = Nearest(small_models.embedding())
    model.export(tmp_path / "exported", verbose=False)
    signatures = tf.saved_model.load(tmp_path / "exported").signatures
    x, _ = contract.first_batch()
    answer = answer_in_two_steps(signatures, x)
    np.testing.assert_allclose(answer, model(x), rtol=1e-5)


def test_targets_of_any_shape_are_kept_in_two_steps(tmp_path):
    model = keras_meta.MatchingNetwork(
        small_models.embedding(), regression=True
    )
    model.export(tmp_path / "exported", verbose=False)
    signatures = tf.saved_model.load(tmp_path / "exported").signatures
    x, _ = contract.first_batch()
    for shape in ((), (2,), (2, 3)):
        targets = np.random.default_rng(0).normal(size=(4, 6, *shape))
        x = {**x, "support_y": tf.constant(targets, "float32")}
        answer = answer_in_two_steps(signatures, x)
        np.testing.assert_allclose(answer, model(x), rtol=1e-5, atol=1e-5)


def test_images_are_resized_in_the_graph(tmp_path):
    model = glyph_like_model()
    preprocessing = keras.Sequential(
        [
            keras.Input((None, None, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Resizing(8, 8),
        ]
    )
    generator = np.random.default_rng(0)
    raw = {
        "support_x": generator.integers(0, 256, (2, 6, 16, 12, 1), "uint8"),
        "support_y": np.array([[0, 1, 2] * 2] * 2, "int32"),
        "query_x": generator.integers(0, 256, (2, 4, 10, 10, 1), "uint8"),
    }
    model.export(
        tmp_path / "exported",
        preprocessing=preprocessing,
        warmup=raw,
        verbose=False,
    )
    np.savez(tmp_path / "raw.npz", **raw)
    prepared = {
        key: tf.reshape(
            preprocessing(raw[key].reshape(-1, *raw[key].shape[2:])),
            [2, -1, 8, 8, 1],
        )
        for key in ("support_x", "query_x")
    }
    np.save(
        tmp_path / "answer.npy",
        model({**prepared, "support_y": raw["support_y"]}),
    )
    run_elsewhere(
        """
        import sys
        import numpy as np
        import tensorflow as tf

        signatures = tf.saved_model.load(sys.argv[1] + "/exported").signatures
        raw = {
            name: tf.constant(value)
            for name, value in np.load(sys.argv[1] + "/raw.npz").items()
        }
        expected = np.load(sys.argv[1] + "/answer.npy")
        (answer,) = signatures["adapt_and_predict"](**raw).values()
        assert np.abs(answer - expected).max() < 1e-5
        queries = raw.pop("query_x")
        state = signatures["adapt"](**raw)["task_state"]
        (answer,) = signatures["predict"](
            task_state=state, query_x=queries
        ).values()
        assert np.abs(answer - expected).max() < 1e-5
        """,
        tmp_path,
    )
    assert (tmp_path / "exported" / warmup_requests.FILE).exists()


def test_texts_are_read_in_the_graph(tmp_path):
    words = keras.layers.TextVectorization(
        vocabulary=["good", "bad", "day"], output_sequence_length=4
    )
    preprocessing = keras.Sequential([keras.Input((), dtype="string"), words])
    network = keras.Sequential(
        [
            keras.Input((4,), dtype="int64"),
            keras.layers.Embedding(5, 4),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    model = keras_meta.PrototypicalNetwork(network)
    model.export(tmp_path, preprocessing=preprocessing, verbose=False)
    signatures = tf.saved_model.load(tmp_path).signatures
    texts = [["good day", "bad day"]]
    state = signatures["adapt"](
        support_x=tf.constant(texts), support_y=tf.constant([[0, 1]])
    )["task_state"]
    (answer,) = signatures["predict"](
        task_state=state, query_x=tf.constant([["a bad day", "good good"]])
    ).values()
    expected = model(
        {
            "support_x": words(texts[0])[None],
            "support_y": np.array([[0, 1]]),
            "query_x": words(["a bad day", "good good"])[None],
        }
    )
    np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_preprocessing_must_know_its_input(tmp_path):
    model = small_models.make_model("PrototypicalNetwork")
    with pytest.raises(TypeError, match="`preprocessing` must be a `keras.Mod"):
        model.export(tmp_path, preprocessing=keras.layers.Rescaling(2.0))
    unknown = keras.Sequential([keras.layers.Rescaling(2.0)])
    with pytest.raises(ValueError, match="must know the shape of its input"):
        model.export(tmp_path, preprocessing=unknown)


def test_refuses_a_warm_up_that_is_no_episode(tmp_path):
    with pytest.raises(ValueError, match="missing.*query_x"):
        glyph_like_model().export(tmp_path, warmup={"support_x": np.ones(3)})
