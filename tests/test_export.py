import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta


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
