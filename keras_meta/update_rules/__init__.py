from keras_meta.update_rules.base import UpdateRule
from keras_meta.update_rules.gradient_descent import GradientDescent

__all__ = ["GradientDescent", "UpdateRule"]
