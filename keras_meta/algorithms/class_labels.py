"""Classes that a support set shows: what must hold of their labels."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from keras_meta import episode

# The score of a way that a task does not have. Not infinite: the gradient of
# a softmax would be NaN.
ABSENT = -1e9


def check_takes_logits(losses):
    """Checks that no loss takes probabilities, nor may choose to.

    Args:
        losses: What `compile()` takes, one loss or a structure of them.
    """
    for loss in tf.nest.flatten(losses):
        _check_takes_logits(loss)


def _check_takes_logits(loss):
    if isinstance(loss, str):
        # What Keras makes of these two takes probabilities.
        ambiguous = loss.lower() in ("crossentropy", "ce")
        function = keras.losses.get("bce" if ambiguous else loss)
    else:
        function = loss
    from_logits = getattr(function, "from_logits", None)
    if from_logits is None and callable(function):
        parameters = inspect.signature(function).parameters
        if "from_logits" in parameters:
            from_logits = parameters["from_logits"].default
    if from_logits is False:
        raise ValueError(
            "The loss must take logits, which are what the model answers; one "
            f"of probabilities trains nothing. Received: loss={loss!r}. Use "
            "`keras.losses.SparseCategoricalCrossentropy(from_logits=True)`, "
            "or for pairs "
            "`keras.losses.BinaryCrossentropy(from_logits=True)`."
        )


def check_class_numbers(name, labels):
    if labels is None:
        return
    if not hasattr(labels, "dtype"):
        labels = np.asarray(labels)
    hint = (
        "Turn one-hot labels into numbers with `argmax(axis=-1)`; for targets "
        "of a regression make the model with `regression=True`, where it "
        "takes that: `MatchingNetwork` does."
    )
    if not tf.as_dtype(labels.dtype).is_integer:
        raise TypeError(
            "Labels must be class numbers, integers. Received: "
            f"{name} of dtype {tf.as_dtype(labels.dtype).name}. {hint}"
        )
    shape = tf.TensorShape(labels.shape)
    if shape.rank not in (None, 2):
        raise ValueError(
            "Labels must be class numbers, one for each example, `[tasks, "
            f"examples]`. Received: {name} of shape {shape}. {hint}"
        )


def check_support(x, y, asked=True):
    """Checks that every class that is asked for has a support example."""
    support = np.asarray(x[episode.SUPPORT_Y])
    weight = np.asarray(x.get(episode.SUPPORT_WEIGHT, np.ones(support.shape)))
    asked = np.broadcast_to(asked, np.shape(y))
    for task, labels in enumerate(np.asarray(y)):
        missing = np.setdiff1d(
            labels[asked[task]], support[task][weight[task] > 0]
        )
        if missing.size:
            raise ValueError(
                "The support set must have an example of every class that "
                f"its queries ask for. Received: task {task}, whose support "
                f"set lacks the classes {missing.tolist()}."
            )


def class_shares(labels, weight):
    """Returns what each support example counts in the mean of its class.

    Args:
        labels: Tensor `[tasks, support, ways]`, one-hot.
        weight: Tensor `[tasks, support]`, 0 where padded.

    Returns:
        Tensor `[tasks, support, ways]`, of sum 1 over the support set, or 0
        for ways that a task lacks.
    """
    labels = labels * weight[..., None]
    counts = tf.reduce_sum(labels, axis=1, keepdims=True)
    return tf.math.divide_no_nan(labels, counts)


def class_means(examples, labels, weight):
    """Returns the means of the classes, `[tasks, ways, size]`.

    Args:
        examples: Tensor `[tasks, support, size]`.
        labels: Tensor `[tasks, support, ways]`, one-hot.
        weight: Tensor `[tasks, support]`, 0 where padded.
    """
    return tf.einsum("tsw,tsd->twd", class_shares(labels, weight), examples)
