import keras

from keras_meta import arguments
from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class GradientDescent(UpdateRule):
    """Inner steps of plain gradient descent: `weight - rate * gradient`.

    Args:
        learning_rate: Float above 0, the rate of every inner step. Defaults
            to `0.01`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Example:

    ```python
    rule = keras_meta.update_rules.GradientDescent(learning_rate=0.1)
    maml = keras_meta.MAML(
        keras_meta.backbones.mlp(), inner_loss="mse", update_rule=rule
    )
    ```

    Reference:
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
    """

    def __init__(self, learning_rate=0.01, **kwargs):
        super().__init__(**kwargs)
        arguments.check_positive_number("learning_rate", learning_rate)
        self.learning_rate = float(learning_rate)

    def call(self, weights, gradients, state, step):
        new_weights = [
            weight - self.learning_rate * gradient
            for weight, gradient in zip(weights, gradients)
        ]
        return new_weights, state

    def get_config(self):
        return {**super().get_config(), "learning_rate": self.learning_rate}


def rule_or_descent(update_rule, learning_rate, default):
    """Returns an update rule, where users may give its rate instead.

    Args:
        update_rule: An `UpdateRule`, or `None`.
        learning_rate: Float above 0, for plain gradient descent, or `None`.
        default: Float above 0, the rate where neither is given.

    Returns:
        An `UpdateRule`.

    Raises:
        ValueError: Where both are given, or the rate is not as described.
        TypeError: Where the rule is something else.
    """
    if update_rule is not None and learning_rate is not None:
        raise ValueError(
            "Only one of `inner_learning_rate` and `update_rule` must be "
            f"given. Received: inner_learning_rate={learning_rate} and "
            f"update_rule={update_rule}. Give the rate to the rule."
        )
    if update_rule is None:
        rate = default if learning_rate is None else learning_rate
        arguments.check_positive_number("inner_learning_rate", rate)
        return GradientDescent(rate)
    if not isinstance(update_rule, UpdateRule):
        raise TypeError(
            "`update_rule` must be a `keras_meta.update_rules.UpdateRule`. "
            f"Received: update_rule={update_rule!r}. An optimizer of Keras is "
            "none: it writes to variables."
        )
    return update_rule
