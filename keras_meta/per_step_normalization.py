"""Batch normalization that knows the inner step it is in."""

import keras
import tensorflow as tf

from keras_meta import normalization


class PerStepNormalization(keras.layers.Layer):
    """Statistics, or scales and offsets, for every number of inner steps.

    The weights of a task move from step to step, and with them what its
    layers give out, so that statistics (or scales) that are shared by all
    steps fit none. For each batch normalization layer of the network there is
    one set for the weights before the first step, and one after each.

    Args:
        network: A built `keras.Model`.
        steps: Integer, the number of inner steps.
        statistics: Boolean. Whether there are moving statistics for each
            step.
        scales: Boolean. Whether there are scales and offsets for each step.

    Raises:
        ValueError: Where the network has no batch normalization.

    Reference:
        - [Antoniou et al., 2019](https://arxiv.org/abs/1810.09502)
    """

    def __init__(self, network, steps, statistics, scales, **kwargs):
        super().__init__(**kwargs)
        layers = normalization.normalization_layers(network)
        if not layers:
            raise ValueError(
                "Normalization per step needs a network with batch "
                f"normalization that is trainable. Received: {network!r}, "
                "which has none. Use normalization_statistics='batch' and "
                "normalization_scales='shared'."
            )
        trainable = [id(v) for v in network.trainable_variables]
        state = [id(v) for v in network.non_trainable_variables]
        self.momenta = []
        # Pairs of a place in the network's list, and what stands there.
        self.scales, self.statistics = [], []
        for layer in layers:
            for variable in (layer.gamma, layer.beta):
                if scales and variable is not None:
                    place = trainable.index(id(variable))
                    copy = self._copies(variable, steps, trainable=True)
                    self.scales.append((place, copy))
            for variable in (layer.moving_mean, layer.moving_variance):
                if statistics:
                    place = state.index(id(variable))
                    copy = self._copies(variable, steps, trainable=False)
                    self.statistics.append((place, copy))
                    self.momenta.append(layer.momentum)
        self.built = True

    def _copies(self, variable, steps, trainable):
        value = tf.convert_to_tensor(variable)
        return self.add_weight(
            shape=(steps + 1, *variable.shape),
            initializer=lambda shape, dtype: tf.broadcast_to(
                tf.cast(value, dtype), shape
            ),
            trainable=trainable,
            autocast=False,
            aggregation="mean",
            name=variable.name,
        )

    def scaled(self, number):
        """Returns whether a trainable weight has copies for each step."""
        return any(number == place for place, _ in self.scales)

    def at_step(self, step, weights, state):
        """Returns the weights and the state to call the network with.

        Args:
            step: Integer, how many inner steps have been taken.
            weights: List of tensors, for `network.trainable_variables`.
            state: List of tensors, for `network.non_trainable_variables`.

        Returns:
            A tuple of two such lists.
        """
        weights, state = list(weights), list(state)
        for place, copies in self.scales:
            weights[place] = tf.convert_to_tensor(copies.value)[step]
        for place, copies in self.statistics:
            state[place] = tf.convert_to_tensor(copies.value)[step]
        return weights, state

    def used(self, states):
        """Picks what batch normalization used out of the states it left.

        Args:
            states: List of the states after the calls at each step.

        Returns:
            A list of tensors `[steps + 1, ...]`, for `update_statistics()`.
        """
        return [
            tf.stack([state[place] for state in states])
            for place, _ in self.statistics
        ]

    def update_statistics(self, used, diverged):
        """Moves the statistics towards those of a meta-batch.

        Args:
            used: What `used()` returned, with a leading axis of tasks.
            diverged: Bool tensor. Whether to leave all as it is.
        """
        for (_, copies), momentum, values in zip(
            self.statistics, self.momenta, used
        ):
            old = tf.convert_to_tensor(copies.value)
            new = momentum * old + (1 - momentum) * tf.reduce_mean(values, 0)
            copies.assign(tf.where(diverged, old, new))
