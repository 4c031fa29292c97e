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

__all__ = [
    "AttentiveNeuralProcess",
    "ConditionalNeuralProcess",
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
    "SNAIL",
    "SiameseNetwork",
]
