from keras_meta.algorithms.base import EpisodicModel
from keras_meta.algorithms.implicit_maml import ImplicitMAML
from keras_meta.algorithms.learned_optimizer import LearnedOptimizer
from keras_meta.algorithms.maml import MAML
from keras_meta.algorithms.matching_network import MatchingNetwork
from keras_meta.algorithms.proto_maml import ProtoMAML
from keras_meta.algorithms.prototypical_network import PrototypicalNetwork
from keras_meta.algorithms.relation_network import RelationNetwork
from keras_meta.algorithms.reptile import Reptile
from keras_meta.algorithms.siamese_network import SiameseNetwork

__all__ = [
    "MAML",
    "EpisodicModel",
    "ImplicitMAML",
    "LearnedOptimizer",
    "MatchingNetwork",
    "ProtoMAML",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "SiameseNetwork",
]
