"""Few-shot learning and meta-learning for Keras."""

import keras

if keras.config.backend() != "tensorflow":
    raise ImportError(
        "keras_meta needs Keras on TensorFlow. Received: the Keras backend "
        f"{keras.config.backend()!r}. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is first imported, or change "
        "`backend` in ~/.keras/keras.json."
    )

from keras_meta import algorithms
from keras_meta import backbones
from keras_meta import episodes
from keras_meta import update_rules
from keras_meta import visualization
from keras_meta import xla
from keras_meta.algorithms.base import EpisodicModel
from keras_meta.algorithms.maml import MAML
from keras_meta.divergence import DivergenceError
from keras_meta.evaluation import evaluate_episodes
from keras_meta.version import __version__

xla.register_slice_gradient()

__all__ = [
    "DivergenceError",
    "EpisodicModel",
    "MAML",
    "__version__",
    "algorithms",
    "backbones",
    "episodes",
    "evaluate_episodes",
    "update_rules",
    "visualization",
]
