"""Makes TF-Agents 0.19 usable beside Keras 3: the only file that mends it.

TF-Agents is written for Keras 2 and for NumPy 1. Each mend says which fault of
TF-Agents it answers; all of them are corrected in its sources, but no release
has them.
"""

import importlib
import importlib.util
import os
import sys
import warnings

import numpy as np
import tensorflow as tf

_INSTALL = "pip install 'keras-meta[rl]'"
# Its own pins have no wheels from Python 3.12 on.
_INSTALL_FROM_3_12 = (
    "pip install --no-deps tf-agents==0.19.0 && pip install tf_keras "
    "tensorboard tensorflow-probability==0.25.0 gin-config gym==0.23.0 "
    "gymnasium pillow cloudpickle setuptools"
)


def prepare():
    """Makes `import tf_agents` work, and Keras 3 stay what it is.

    Raises:
        ImportError: Where TF-Agents or what it needs is not installed, or
            where it is too late, since `tf.keras` was used as Keras 3.
    """
    _check_installed()
    _route_legacy_keras()
    _silence_gym()
    with warnings.catch_warnings():
        # Of syntax and names that are deprecated, while it is imported.
        warnings.simplefilter("ignore")
        import tf_agents  # noqa: F401

        _mend_categorical_projection()
        _mend_sampling_of_small_integers()
        _mend_reshapes()


def _check_installed():
    line = _INSTALL if sys.version_info < (3, 12) else _INSTALL_FROM_3_12
    # These are not asked for by TF-Agents, and yet needed: TensorFlow had
    # brought the first two with it.
    for package in ("tf_agents", "tf_keras", "tensorboard"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"`keras_meta.rl` needs the package {package}, which is not "
                f"installed. Run:\n\n    {line}\n"
            )


def _route_legacy_keras():
    """Makes `tf.keras` Keras 2, whenever TensorFlow was imported.

    TensorFlow reads the variable when it is imported and when `tf.keras` is
    first touched. Set in between, TF-Agents would import well, and its
    networks would silently have no weights.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    if _is_keras_3(tf.__dict__.get("keras")):
        raise ImportError(
            "`keras_meta.rl` must be imported before `tf.keras` is used, "
            "since TF-Agents needs `tf.keras` to be Keras 2. Received: a "
            "process in which `tf.keras` is Keras 3 already. Import "
            "`keras_meta.rl` first, write `import keras` instead of "
            "`tf.keras`, or set TF_USE_LEGACY_KERAS=1 before Python starts."
        )
    legacy = importlib.import_module("tf_keras")
    folder = os.path.join(os.path.dirname(legacy.__file__), "api", "_v2")
    if folder not in tf.__path__:
        # Where `import tensorflow.keras` looks.
        tf.__path__.insert(0, folder)
    version_2 = importlib.import_module("tf_keras.api._v2.keras")
    version_1 = importlib.import_module("tf_keras.api._v1.keras")
    for name in list(sys.modules):
        if name == "tensorflow.keras" or name.startswith("tensorflow.keras."):
            del sys.modules[name]
    setattr(tf, "keras", version_2)
    setattr(tf.compat.v2, "keras", version_2)
    setattr(tf.compat.v1, "keras", version_1)


def _is_keras_3(module):
    """Returns whether what TensorFlow has for `keras` is Keras 3, in use."""
    if module is None:
        return False
    if type(module).__name__ == "KerasLazyLoader":
        loaded = getattr(module, "_tfll_initialized", False)
        return loaded and module._tfll_keras_version == "keras_3"
    return getattr(module, "__name__", "").startswith("keras.")


def _silence_gym():
    """gym, which TF-Agents imports, prints that gymnasium has replaced it."""
    if importlib.util.find_spec("gym_notices") is not None:
        importlib.import_module("gym_notices.notices").notices.clear()


class _NumPy:
    """NumPy as one module sees it, with some functions replaced."""

    def __init__(self, **replaced):
        self.__dict__.update(replaced)

    def __getattr__(self, name):
        return getattr(np, name)


def _mend_categorical_projection():
    """TF-Agents turns an array of one number into an int; NumPy 2.4 refuses.

    Mended in its sources by commit 27ab8123.
    """
    from tf_agents.networks import categorical_projection_network

    class Convertible(np.ndarray):
        def __int__(self):
            return int(self.item())

    categorical_projection_network.np = _NumPy(
        unique=lambda array: np.unique(array).view(Convertible)
    )


def _mend_sampling_of_small_integers():
    """TF-Agents adds 1 to the maximum of uint8, which NumPy 2 wraps to 0.

    Mended in its sources by commit 8662dab6.
    """
    from tf_agents.specs import tensor_spec

    sample = tensor_spec.sample_bounded_spec
    if getattr(sample, "mended", False):
        return

    def sample_bounded_spec(spec, seed=None, outer_dims=None):
        small = (tf.uint8, tf.int8, tf.uint16, tf.int16)
        if spec.dtype not in small:
            return sample(spec, seed=seed, outer_dims=outer_dims)
        wide = tensor_spec.BoundedTensorSpec(
            spec.shape,
            tf.int32,
            np.asarray(spec.minimum, np.int32),
            np.asarray(spec.maximum, np.int32),
            spec.name,
        )
        drawn = sample(wide, seed=seed, outer_dims=outer_dims)
        return tf.cast(drawn, spec.dtype)

    sample_bounded_spec.mended = True
    tensor_spec.sample_bounded_spec = sample_bounded_spec


def _mend_reshapes():
    """TF-Agents names an argument of `reshape` that NumPy 2.4 has not.

    Mended in its sources by commit b08e2a8e.
    """
    from tf_agents.bandits.environments import ranking_environment
    from tf_agents.environments import wrappers

    def reshape(array, shape=None, newshape=None, **options):
        shape = newshape if shape is None else shape
        return np.reshape(array, shape, **options)

    wrappers.np = ranking_environment.np = _NumPy(reshape=reshape)
