import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
import keras_meta.rl
from keras_meta.rl import compatibility

ROOT = pathlib.Path(keras_meta.__file__).resolve().parents[1]

USE = """
import keras_meta.rl
from tf_agents.networks import q_network
import tf_agents
spec = tf_agents.specs.BoundedTensorSpec([], "int32", 0, 2)
network = q_network.QNetwork(tf_agents.specs.TensorSpec([4], "float32"), spec)
network.create_variables()
assert len(network.trainable_weights) == 6, network.trainable_weights
import keras
assert keras.__version__.startswith("3"), keras.__version__
import tensorflow as tf
# Keras 3 has none of it.
assert tf.keras.__internal__
"""
TRAIN_KERAS_3 = """
import keras
import numpy as np
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
"""


def run_python(code, **environment):
    settings = {k: v for k, v in os.environ.items() if "LEGACY" not in k}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**settings, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_it_may_be_imported_after_keras_3_has_trained():
    result = run_python(TRAIN_KERAS_3 + USE + TRAIN_KERAS_3)
    assert result.returncode == 0, result.stderr
    # gym announces its end where nobody stops it.
    assert "unmaintained" not in result.stderr


def test_it_is_too_late_once_tf_keras_is_keras_3():
    result = run_python("import tensorflow as tf\ntf.keras.layers\n" + USE)
    assert result.returncode != 0
    assert "ImportError: `keras_meta.rl` must be imported before" in (
        result.stderr
    )
    assert "Received: a process in which `tf.keras` is Keras 3" in result.stderr


@pytest.mark.parametrize("package", ["tf_agents", "tf_keras", "tensorboard"])
def test_the_line_to_type_is_told(package, monkeypatch):
    find = compatibility.importlib.util.find_spec
    monkeypatch.setattr(
        compatibility.importlib.util,
        "find_spec",
        lambda name: None if name == package else find(name),
    )
    with pytest.raises(ImportError, match=f"needs the package {package}") as e:
        compatibility.prepare()
    assert "pip install" in str(e.value)
    for version, line in (
        ((3, 11), "pip install 'keras-meta[rl]'"),
        ((3, 12), "--no-deps tf-agents==0.19.0"),
    ):
        monkeypatch.setattr(compatibility.sys, "version_info", version)
        with pytest.raises(ImportError, match="pip install") as e:
            compatibility.prepare()
        assert line in str(e.value)


def test_keras_3_fits_saves_and_exports_beside_it(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.ones((4, 2), "float32")
    model.fit(x, np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(x), expected, rtol=1e-6)


def test_the_mends_do_what_the_sources_of_tf_agents_do_now():
    from tf_agents.environments import wrappers
    from tf_agents.networks import categorical_projection_network
    from tf_agents.specs import tensor_spec

    # Each of them raises where TF-Agents is as it was released.
    mended = categorical_projection_network.np
    assert int(mended.unique(np.array([5, 5]))) == 5
    assert mended.float32 is np.float32
    pixels = tensor_spec.BoundedTensorSpec([100], tf.uint8, 0, 255)
    drawn = tensor_spec.sample_bounded_spec(pixels, seed=0)
    assert drawn.dtype == tf.uint8 and len(np.unique(drawn)) > 20
    square = wrappers.np.reshape(np.arange(4), newshape=(2, 2))
    assert square.shape == (2, 2)
    np.testing.assert_array_equal(
        wrappers.np.reshape(np.arange(4), (2, 2)), square
    )


def test_preparing_twice_mends_once():
    from tf_agents.specs import tensor_spec

    before = tensor_spec.sample_bounded_spec
    compatibility.prepare()
    assert tensor_spec.sample_bounded_spec is before
