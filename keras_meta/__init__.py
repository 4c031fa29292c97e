"""Few-shot learning and meta-learning for Keras."""

import os

_BACKEND_ERROR = (
    "keras_meta needs Keras on TensorFlow. Received: the Keras backend {!r}. "
    "Set the environment variable KERAS_BACKEND=tensorflow before Keras is "
    "first imported, or change `backend` in ~/.keras/keras.json."
)

try:
    import keras
except ImportError as error:
    # Keras imports its backend, which need not be installed.
    _backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if _backend == "tensorflow":
        raise
    raise ImportError(_BACKEND_ERROR.format(_backend)) from error

if keras.config.backend() != "tensorflow":
    raise ImportError(_BACKEND_ERROR.format(keras.config.backend()))

from keras_meta import algorithms
from keras_meta import backbones
from keras_meta import distances
from keras_meta import episodes
from keras_meta import losses
from keras_meta import metrics
from keras_meta import update_rules
from keras_meta import visualization
from keras_meta import xla
from keras_meta.algorithms.attentive_neural_process import (
    AttentiveNeuralProcess,
)
from keras_meta.algorithms.base import EpisodicModel
from keras_meta.algorithms.conditional_neural_process import (
    ConditionalNeuralProcess,
)
from keras_meta.algorithms.fine_tuning import FineTuning
from keras_meta.algorithms.frozen_representation import FrozenRepresentation
from keras_meta.algorithms.hyper_network import HyperNetwork
from keras_meta.algorithms.implicit_maml import ImplicitMAML
from keras_meta.algorithms.in_context_learner import InContextLearner
from keras_meta.algorithms.learned_optimizer import LearnedOptimizer
from keras_meta.algorithms.maml import MAML
from keras_meta.algorithms.matching_network import MatchingNetwork
from keras_meta.algorithms.memory_augmented_network import (
    MemoryAugmentedNetwork,
)
from keras_meta.algorithms.proto_maml import ProtoMAML
from keras_meta.algorithms.prototypical_network import PrototypicalNetwork
from keras_meta.algorithms.relation_network import RelationNetwork
from keras_meta.algorithms.reptile import Reptile
from keras_meta.algorithms.ridge_head import RidgeHead
from keras_meta.algorithms.siamese_network import SiameseNetwork
from keras_meta.algorithms.snail import SNAIL
from keras_meta.divergence import DivergenceError
from keras_meta.evaluation import evaluate_episodes
from keras_meta.litert import export_litert
from keras_meta.rule_optimizer import RuleOptimizer
from keras_meta.task_library import TaskLibrary
from keras_meta.version import __version__

xla.register_vectorized_barrier()
xla.register_slice_gradient()

__all__ = [
    "AttentiveNeuralProcess",
    "ConditionalNeuralProcess",
    "DivergenceError",
    "EpisodicModel",
    "FineTuning",
    "FrozenRepresentation",
    "HyperNetwork",
    "ImplicitMAML",
    "InContextLearner",
    "LearnedOptimizer",
    "MAML",
    "MatchingNetwork",
    "MemoryAugmentedNetwork",
    "ProtoMAML",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "RidgeHead",
    "RuleOptimizer",
    "SNAIL",
    "SiameseNetwork",
    "TaskLibrary",
    "__version__",
    "algorithms",
    "backbones",
    "distances",
    "episodes",
    "evaluate_episodes",
    "export_litert",
    "losses",
    "metrics",
    "update_rules",
    "visualization",
]
