from keras_meta.algorithms.base import EpisodicModel
from keras_meta.algorithms.maml import MAML
from keras_meta.algorithms.prototypical_network import PrototypicalNetwork
from keras_meta.algorithms.siamese_network import SiameseNetwork

__all__ = [
    "MAML",
    "EpisodicModel",
    "PrototypicalNetwork",
    "SiameseNetwork",
]
