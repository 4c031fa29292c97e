"""Normalization inside an episode: which statistics, and exact gradients.

Whether a network is trained (so that dropout is on) and which statistics its
batch normalization uses are two questions. Keras answers both with the one
argument `training`; here they are taken apart.
"""

import contextlib
import threading
import unittest.mock

import keras
import numpy as np
import tensorflow as tf

from keras_meta import fused_normalization
from keras_meta import layer_calls

STATISTICS = ("batch", "support", "frozen", "per_step")
SCALES = ("shared", "per_step")

# What is set on layers for the length of a call, other threads must not see.
_LOCK = threading.RLock()


def normalization_layers(network):
    """Returns the batch normalization layers of `network`, as a list.

    One that is not trainable is left out: as everywhere in Keras, it always
    uses its moving statistics.
    """
    return [
        layer
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
    ]


def statistics_mask(network):
    """Returns which of the states of `network` an episode sets.

    Args:
        network: A built `keras.Model`.

    Returns:
        List of booleans, for `network.non_trainable_variables`.
    """
    statistics = {
        id(variable)
        for layer in normalization_layers(network)
        for variable in (layer.moving_mean, layer.moving_variance)
    }
    return [
        id(variable) in statistics
        for variable in network.non_trainable_variables
    ]


def check_layers(network):
    """Raises a `ValueError` for batch normalization that cannot be right."""
    for layer in normalization_layers(network):
        for option, reason in (
            ("renorm", "its corrections belong to moving statistics"),
            ("synchronized", "a task is never divided between devices"),
        ):
            if getattr(layer, option, False):
                raise ValueError(
                    f"Batch normalization must not use `{option}` inside an "
                    f"episode, since {reason}. Received: the layer "
                    f"{layer.name!r} with {option}=True. Set it to False."
                )


@contextlib.contextmanager
def episodic(network, batch_statistics_enabled, example_weight=None):
    """Sets how `network` normalizes for the length of one call.

    See `exact_second_order()` and `batch_statistics()`.
    """
    with _LOCK, exact_second_order():
        with batch_statistics(
            network, batch_statistics_enabled, example_weight
        ):
            yield


@contextlib.contextmanager
def batch_statistics(network, enabled, example_weight=None):
    """Sets what batch normalization does, whatever `training` says.

    Where `enabled`, every layer normalizes with the statistics of the batch
    at hand and writes just these to its moving statistics, undamped, so that
    a caller in a `keras.StatelessScope` can read off what was used. Examples
    of `example_weight` 0 are padded, and do not count. Where not `enabled`,
    every layer normalizes with its moving statistics and leaves them.
    """
    layers = normalization_layers(network)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        with _called_with(network, enabled, example_weight):
            yield
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum


def _called_with(network, training, example_weight):
    """Decides `training` and the mask of batch normalization for a call."""
    return layer_calls.replaced(
        [
            (layer, _call_with(layer, training, example_weight))
            for layer in normalization_layers(network)
        ]
    )


def exact_second_order():
    """Makes gradients of gradients through mean and variance exact.

    `tf.nn.moments`, which the normalization layers of Keras use, takes the
    mean in the variance for a constant. That is right for the first
    derivative, where its part is zero, and wrong for the second: a few
    percent of the outer gradient of MAML. Within this context manager it is
    an equivalent without that shortcut.
    """
    return unittest.mock.patch.object(tf.nn, "moments", _moments)


def _moments(x, axes, shift=None, keepdims=False, name=None):
    del shift  # Unused by TensorFlow, too.
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=keepdims)
    if not keepdims:
        mean = tf.reshape(mean, tf.shape(variance))
        mean.set_shape(variance.shape)
    return mean, variance


def _call_with(layer, training, example_weight):
    def call(inputs, mask=None, **kwargs):
        kwargs["training"] = training
        if training and mask is None and example_weight is not None:
            mask = _example_mask(layer, inputs, example_weight)
        if training and mask is None:
            if fused_normalization.can_normalize(layer, inputs):
                return fused_normalization.normalize_batch(layer, inputs)
        return type(layer).call(layer, inputs, mask=mask, **kwargs)

    return call


def call_network(network, x, training):
    """Calls `network` as Keras does, its batch normalization faster.

    Args:
        network: A `keras.Model`.
        x: Its input.
        training: Boolean.

    Returns:
        What `network(x, training=training)` does.
    """
    if not training:
        return network(x, training=False)
    with _LOCK, _called_with(network, True, None):
        return network(x, training=True)


def _example_mask(layer, inputs, example_weight):
    """Returns what Keras takes: which inputs count, all but the last axis."""
    rank = len(inputs.shape)
    if layer.axis not in (-1, rank - 1):
        raise ValueError(
            "With padded support examples (`support_weight`), batch "
            "normalization must be over the last axis. Received: the layer "
            f"{layer.name!r} with axis={layer.axis}."
        )
    real = tf.reshape(example_weight != 0, [-1] + [1] * (rank - 2))
    return tf.broadcast_to(real, tf.shape(inputs)[:-1])


def check_frozen_statistics(network):
    """Raises a `ValueError` where the moving statistics were never trained."""
    for layer in normalization_layers(network):
        mean = layer.moving_mean.numpy()
        variance = layer.moving_variance.numpy()
        if np.all(mean == 0.0) and np.all(variance == 1.0):
            raise ValueError(
                "With `normalization_statistics='frozen'` the network must "
                "come with trained moving statistics: they do not move in an "
                "episode, so that an untrained network stays at chance. "
                f"Received: a network whose layer {layer.name!r} has its "
                "initial statistics (mean 0, variance 1). Load a pretrained "
                "network, or use normalization_statistics='batch' or "
                "'support'."
            )


def check_example_counts(network, statistics, examples):
    """Refuses batch statistics of a single example.

    Args:
        network: A `keras.Model`.
        statistics: One of `STATISTICS`, for the message.
        examples: Dictionary of the examples whose statistics are used,
            `[tasks, examples, ...]`, by their names.
    """
    if not normalization_layers(network):
        return
    for key, structure in examples.items():
        if tf.nest.flatten(structure)[0].shape[1] == 1:
            raise ValueError(
                "The statistics of a single example must not be used for "
                "batch normalization: they leave nothing of the example. "
                f"Received: normalization_statistics={statistics!r} and one "
                f"example in `{key}`. For single queries use "
                "normalization_statistics='support'."
            )
