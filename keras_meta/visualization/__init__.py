from keras_meta.visualization.classification import plot_episode
from keras_meta.visualization.regression import plot_regression
from keras_meta.visualization.roc import plot_roc

__all__ = ["plot_episode", "plot_regression", "plot_roc"]
