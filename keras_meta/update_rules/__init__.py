from keras_meta.update_rules.adam import Adam
from keras_meta.update_rules.base import UpdateRule
from keras_meta.update_rules.coordinatewise_lstm import CoordinatewiseLSTM
from keras_meta.update_rules.gradient_descent import GradientDescent
from keras_meta.update_rules.learned_step_sizes import LearnedStepSizes
from keras_meta.update_rules.lstm_meta_learner import LSTMMetaLearner
from keras_meta.update_rules.meta_sgd import MetaSGD
from keras_meta.update_rules.momentum import Momentum
from keras_meta.update_rules.rmsprop import RMSprop

__all__ = [
    "Adam",
    "CoordinatewiseLSTM",
    "GradientDescent",
    "LSTMMetaLearner",
    "LearnedStepSizes",
    "MetaSGD",
    "Momentum",
    "RMSprop",
    "UpdateRule",
]
