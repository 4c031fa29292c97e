import numbers

import numpy as np
import tensorflow as tf


def check_integer(name, value):
    """Raises a `ValueError` where `value` is not an integer."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be an integer. Received: {name}={value!r}."
        )


def check_positive_integer(name, value, advice=""):
    """Raises a `ValueError` where `value` is not an integer of 1 or more."""
    is_integer = isinstance(value, numbers.Integral)
    if not is_integer or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"`{name}` must be an integer of 1 or more. "
            f"Received: {name}={value!r}. {advice}".rstrip()
        )


def check_integer_from_zero(name, value):
    """Raises a `ValueError` where `value` is not an integer of 0 or more."""
    is_integer = isinstance(value, numbers.Integral)
    if not is_integer or isinstance(value, bool) or value < 0:
        raise ValueError(
            f"`{name}` must be an integer of 0 or more. "
            f"Received: {name}={value!r}."
        )


def check_number(name, value):
    """Raises a `ValueError` where `value` is not a finite number."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not abs(value) < float("inf"):
        raise ValueError(
            f"`{name}` must be a finite number. Received: {name}={value!r}."
        )


def check_number_from_zero(name, value, advice=""):
    """Raises a `ValueError` where `value` is not a finite number from 0."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < float("inf"):
        raise ValueError(
            f"`{name}` must be a finite number of 0 or more. "
            f"Received: {name}={value!r}. {advice}".rstrip()
        )


def check_positive_number(name, value, advice=""):
    """Raises a `ValueError` where `value` is not a finite number above 0."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise ValueError(
            f"`{name}` must be a finite number above 0. "
            f"Received: {name}={value!r}. {advice}".rstrip()
        )


def check_limits(name, value):
    """Raises a `ValueError` where `value` is not two numbers, 0 < a <= b."""
    try:
        lowest, highest = value
        fit = 0 < lowest <= highest < float("inf")
    except (TypeError, ValueError):
        fit = False
    if not fit:
        raise ValueError(
            f"`{name}` must be two finite numbers above 0, the lowest and the "
            f"highest. Received: {name}={value!r}."
        )


def check_choice(name, value, choices):
    """Raises a `ValueError` where `value` is not one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}."
        )


def check_share(name, value, below_one=False):
    """Raises a `ValueError` where `value` is not a number from 0 to 1."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1 or (below_one and value == 1):
        end = "less than 1" if below_one else "1"
        raise ValueError(
            f"`{name}` must be a number from 0 to {end}. "
            f"Received: {name}={value!r}."
        )


def check_same_parts(name, one, other):
    """Raises a `ValueError` where two structures of arrays differ."""
    try:
        tf.nest.assert_same_structure(one, other)
    except (TypeError, ValueError) as error:
        parts = [
            tf.nest.map_structure(lambda leaf: str(np.shape(leaf)), structure)
            for structure in (one, other)
        ]
        raise ValueError(
            f"{name} must have the same parts, with the same keys. Received: "
            f"shapes {parts[0]} and {parts[1]}."
        ) from error


def check_units(name, units):
    """Raises a `ValueError` where `units` are no sizes of layers."""
    if not isinstance(units, (tuple, list)):
        raise ValueError(
            f"`{name}` must be a sequence of integers, the sizes of the "
            f"hidden layers. Received: {name}={units!r}."
        )
    for size in units:
        check_positive_integer(name, size)


def check_heads(heads, name, size):
    """Raises a `ValueError` where a size cannot be shared out to heads."""
    check_positive_integer("heads", heads)
    # With heads of size 1, and as many heads as support examples, Keras adds
    # the biases of attention along the wrong axis.
    if size % heads or size == heads:
        raise ValueError(
            f"`{name}` must be a multiple of `heads`, and more than one of it. "
            f"Received: {name}={size} and heads={heads}."
        )


def check_boolean(name, value):
    """Raises a `ValueError` where `value` is not true or false."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(
            f"`{name}` must be True or False. Received: {name}={value!r}."
        )
