from keras_meta.algorithms.base import EpisodicModel
from keras_meta.algorithms.maml import MAML

__all__ = ["MAML", "EpisodicModel"]
