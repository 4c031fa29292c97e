"""Soft actor-critic: its networks, and what they are trained for."""

import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl import heads
from keras_meta.rl import networks
from keras_meta.rl import vectors
from keras_meta.rl.agents import parts


@keras.saving.register_keras_serializable(package="keras_meta")
class Temperature(keras.layers.Layer):
    """How much entropy counts, a weight.

    Args:
        start: Float above 0, where it starts.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, start, **kwargs):
        super().__init__(**kwargs)
        self.start = float(start)
        self.logarithm = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(np.log(self.start)),
            name="logarithm",
        )
        self.built = True

    def get_config(self):
        return {**super().get_config(), "start": self.start}


class SoftActorCritic(tf.Module):
    """An actor, two critics, their targets, and the losses of all.

    States are vectors; who knows more than the observation joins it to them.
    Critics see actions in units of their bounds, in which entropy is counted,
    too.

    Args:
        state_spec: The specification of a state, a vector.
        action_spec: The specification of an action, a real vector with
            bounds.
        actor_model: A built `keras.Model` from states to features, or `None`
            for two dense layers.
        critic_model: The same from states and actions, joined.
        discount: Float from 0 to 1, what a reward is worth one step later.
        target_rate: Float from 0 to 1, how far targets follow in each step.
        temperature: Float above 0, where the temperature starts.
        target_entropy: Float, the entropy that the temperature sees to;
            `"auto"` for minus the number of actions; `None` for a
            temperature that stays.

    Reference:
        - [Haarnoja et al., 2018](https://arxiv.org/abs/1812.05905)
    """

    def __init__(
        self,
        state_spec,
        action_spec,
        actor_model,
        critic_model,
        discount,
        target_rate,
        temperature,
        target_entropy,
    ):
        arguments.check_share("discount", discount)
        arguments.check_share("target_rate", target_rate)
        arguments.check_positive_number("temperature", temperature)
        if target_entropy == "auto":
            target_entropy = -float(action_spec.shape.num_elements())
        elif target_entropy is not None:
            arguments.check_number("target_entropy", target_entropy)
        super().__init__()
        self.discount = discount
        self.target_rate = target_rate
        features = parts.features(actor_model, state_spec)
        vectors.check_takes("actor_model", features, state_spec.shape[0])
        self.actor = networks.KerasDistributionNetwork(
            state_spec, action_spec, features, head="squashed"
        )
        self._action_spec = lambda: action_spec
        _, self._reach = heads.bounds(action_spec)

        def critic():
            specs = (state_spec, action_spec)
            features = parts.features(critic_model, *specs)
            size = vectors.size(specs)
            vectors.check_takes("critic_model", features, size)
            return networks.KerasCriticNetwork(specs, features)

        self.critics = [critic(), critic()]
        self.targets = [critic(), critic()]
        self._follow(1.0)
        self.target_entropy = target_entropy
        entropy_weight = Temperature(temperature)
        entropy_weight.trainable = target_entropy is not None
        # In a function, where Keras 2 and TensorFlow do not look.
        self._temperature = lambda: entropy_weight
        self._held = [entropy_weight.logarithm.value]

    @property
    def models(self):
        """The Keras models and layers that hold the weights."""
        trained = [self.actor, *self.critics, *self.targets]
        return [*[network.model for network in trained], self._temperature()]

    @property
    def critic_variables(self):
        """List of `keras.Variable`, what the loss of the critics trains."""
        return [
            variable
            for critic in self.critics
            for variable in critic.model.trainable_variables
        ]

    @property
    def actor_variables(self):
        """List of `keras.Variable`, what the loss of the actor trains."""
        return [
            *self.actor.model.trainable_variables,
            *self._temperature().trainable_variables,
        ]

    @property
    def temperature(self):
        """How much entropy counts, a tensor."""
        return tf.exp(self._temperature().logarithm.value)

    def target_values(self, reward, discount, next_state):
        """Returns what the critics should say.

        Args:
            reward: Float tensor `[...]`.
            discount: Float tensor `[...]`, 0 where nothing follows.
            next_state: Float tensor `[..., size]`.

        Returns:
            Float tensor `[...]`, without a gradient.
        """
        action, log_probability = self._decide(next_state)
        value = self._lowest(self.targets, next_state, action)
        value -= self.temperature * log_probability
        return tf.stop_gradient(reward + self.discount * discount * value)

    def critic_loss(self, state, action, target_values):
        """Returns the mean squared error of both critics, added up.

        Args:
            state: Float tensor `[..., size]`; gradients pass to it.
            action: Float tensor `[..., actions]`, within the bounds.
            target_values: Float tensor `[...]`.

        Returns:
            Scalar tensor.
        """
        values = [self._value(c, state, action) for c in self.critics]
        return sum(
            tf.reduce_mean(tf.square(value - target_values)) for value in values
        )

    def actor_loss(self, state):
        """Returns the loss of the actor and of the temperature.

        Args:
            state: Float tensor `[..., size]`.

        Returns:
            Scalar tensor, whose gradient is for `actor_variables` alone.
        """
        action, log_probability = self._decide(state)
        value = self._lowest(self.critics, state, action)
        temperature = tf.stop_gradient(self.temperature)
        loss = tf.reduce_mean(temperature * log_probability - value)
        if self.target_entropy is None:
            return loss
        missing = tf.stop_gradient(
            self.target_entropy + tf.reduce_mean(log_probability)
        )
        return loss - self._temperature().logarithm.value * missing

    def in_units(self, action):
        """Returns actions in units of their bounds, from -1 to 1.

        Args:
            action: Float tensor `[..., actions]`.

        Returns:
            Tensor like it.
        """
        return heads.in_units(action, self._action_spec())

    def follow(self):
        """Moves the targets towards the critics, by `target_rate`."""
        self._follow(self.target_rate)

    def _follow(self, rate):
        for critic, target in zip(self.critics, self.targets):
            for new, old in zip(critic.variables, target.variables):
                old.assign(rate * new + (1.0 - rate) * old)

    def _decide(self, state):
        """Draws actions; returns them and the logarithms of their density."""
        distribution, _ = self.actor(state)
        action = distribution.sample()
        # The density of actions in units of their bounds.
        units = tf.reduce_sum(
            tf.math.log(self._reach * tf.ones_like(action)), axis=-1
        )
        return action, distribution.log_prob(action) + units

    def _value(self, critic, state, action):
        return critic((state, self.in_units(action)))[0]

    def _lowest(self, critics, state, action):
        one, other = [self._value(c, state, action) for c in critics]
        return tf.minimum(one, other)
