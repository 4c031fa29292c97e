from keras_meta.visualization.classification import plot_episode
from keras_meta.visualization.regression import plot_regression

__all__ = ["plot_episode", "plot_regression"]
