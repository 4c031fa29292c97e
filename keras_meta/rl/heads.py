"""The last layers of a policy, and the distributions they stand for."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.distributions import utils as distribution_utils

from keras_meta import arguments

HEADS = ("auto", "categorical", "normal", "squashed")


@keras.saving.register_keras_serializable(package="keras_meta")
class LogDeviation(keras.layers.Layer):
    """The logarithm of a standard deviation, which is a weight.

    Args:
        shape: Tuple of integers, the shape of an action.
        deviation: Float above 0, where the standard deviation starts.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, shape, deviation=1.0, **kwargs):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.deviation = float(deviation)

    def build(self, input_shape):
        self.log_deviation = self.add_weight(
            shape=self.shape,
            initializer=keras.initializers.Constant(np.log(self.deviation)),
            name="log_deviation",
        )

    def call(self, x):
        examples = keras.ops.shape(x)[0]
        return keras.ops.broadcast_to(
            self.log_deviation, (examples, *self.shape)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "deviation": self.deviation,
        }


def policy_head(action_spec, head="auto", deviation=1.0):
    """Returns the layers and the distribution of a policy's actions.

    Args:
        action_spec: The specification of the action.
        head: One of `"auto"`, `"categorical"`, `"normal"`, `"squashed"`.
        deviation: Float above 0, where the standard deviation starts.

    Returns:
        A tuple: the list of layers to put on features, and a function from
        their outputs to a distribution.

    Raises:
        ValueError: Where the head does not fit the actions.
    """
    arguments.check_choice("head", head, HEADS)
    arguments.check_positive_number("deviation", deviation)
    if len(tf.nest.flatten(action_spec)) != 1:
        raise ValueError(
            "A policy must have one action, of any shape. Received: "
            f"action_spec={action_spec}."
        )
    is_integer = action_spec.dtype.is_integer
    fitting = "categorical" if is_integer else "normal"
    if head == "squashed":
        return _squashed_head(action_spec, deviation)
    if head not in ("auto", fitting):
        kind = "integer" if is_integer else "real"
        raise ValueError(
            f"The head must fit the actions: {kind} actions have a {fitting} "
            f"distribution. Received: head={head!r} and action_spec="
            f"{action_spec}. Leave `head` at 'auto'."
        )
    # Small, so that the policy starts with the middle, or with all alike.
    small = keras.initializers.VarianceScaling(1e-4)
    if is_integer:
        dtype = action_spec.dtype
        layer = keras.layers.Dense(
            choices(action_spec), kernel_initializer=small
        )

        def read(logits):
            return tfp.distributions.Categorical(logits, dtype=dtype)

        return [layer], read
    center, reach = bounds(action_spec)
    shape = tuple(action_spec.shape)
    mean = keras.Sequential(
        [
            keras.layers.Dense(int(np.prod(shape)), kernel_initializer=small),
            keras.layers.Reshape(shape),
        ]
    )

    def read(outputs):
        # Two outputs rather than one to split: slices are slow under XLA.
        mean, log_deviation = outputs
        deviation = tf.exp(tf.clip_by_value(log_deviation, -5.0, 2.0))
        if center is not None:
            mean, deviation = center + reach * mean, reach * deviation
        return tfp.distributions.Independent(
            tfp.distributions.Normal(mean, deviation), len(shape)
        )

    return [mean, LogDeviation(shape, deviation)], read


def _squashed_head(action_spec, deviation):
    _, reach = bounds(action_spec)
    if reach is None or action_spec.shape.rank != 1:
        raise ValueError(
            "Actions that are squashed into bounds must be one real vector "
            f"with bounds. Received: action_spec={action_spec}. Take another "
            "`head`, or an agent for other actions."
        )
    size = action_spec.shape[0]
    mean = keras.layers.Dense(size)
    log_deviation = keras.layers.Dense(
        size, bias_initializer=keras.initializers.Constant(np.log(deviation))
    )

    def read(outputs):
        mean, log_deviation = outputs
        deviation = tf.exp(tf.clip_by_value(log_deviation, -5.0, 2.0))
        return distribution_utils.SquashToSpecNormal(
            tfp.distributions.MultivariateNormalDiag(mean, deviation),
            action_spec,
        )

    return [mean, log_deviation], read


def choices(action_spec):
    """Returns how many values an action has.

    Args:
        action_spec: The specification of the action, one integer from 0.

    Raises:
        ValueError: Where it is something else.
    """
    lowest = getattr(action_spec, "minimum", None)
    highest = getattr(action_spec, "maximum", None)
    if (
        lowest is None
        or not action_spec.dtype.is_integer
        or action_spec.shape.rank != 0
        or int(np.max(lowest)) != 0
    ):
        raise ValueError(
            "Discrete actions must be one integer from 0 to a maximum. "
            f"Received: action_spec={action_spec}."
        )
    return int(np.max(highest)) + 1


def in_units(action, action_spec):
    """Returns actions in units of their bounds, where they have any.

    Args:
        action: Float tensor `[..., *shape]`.
        action_spec: The specification of the action.

    Returns:
        Tensor like it; from -1 to 1 within the bounds.
    """
    center, reach = bounds(action_spec)
    return action if center is None else (action - center) / reach


def bounds(action_spec):
    """Returns the middle of an action's bounds and the way to them.

    Returns:
        Two arrays; or `None` twice where an action has no finite bounds.
    """
    lowest = getattr(action_spec, "minimum", None)
    if lowest is None or action_spec.dtype.is_integer:
        return None, None
    lowest = np.asarray(lowest, np.float32)
    highest = np.asarray(action_spec.maximum, np.float32)
    # What has no bounds is told by the largest floats.
    if np.any(np.abs(lowest) > 1e30) or np.any(np.abs(highest) > 1e30):
        return None, None
    return (highest + lowest) / 2, (highest - lowest) / 2
