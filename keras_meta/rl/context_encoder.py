import keras
import tensorflow as tf

from keras_meta.rl import latent_belief
from keras_meta.rl import networks
from keras_meta.rl import vectors
from keras_meta.rl.agents import parts


class ContextEncoder(tf.Module):
    """Infers what a task is from transitions, each of which is read alone.

    Args:
        spec: `Transitions` of `tf.TypeSpec`.
        in_units: A function that gives actions in units of their bounds.
        model: A built `keras.Model` from the observation, the action, the
            reward and the next observation, joined to one vector, to
            features, or `None` for two dense layers.
        latent_size: Integer, the size of the latent variable.
        reward_scale: Float, with which rewards are multiplied.
    """

    def __init__(self, spec, in_units, model, latent_size, reward_scale):
        super().__init__()
        # Whether something follows is for the critics to know.
        self._spec = lambda: spec._replace(discount=())
        self._in_units = in_units
        self._reward_scale = reward_scale
        vector = tf.TensorSpec([vectors.size(self._spec())], tf.float32)
        features = parts.features(model, vector)
        vectors.check_takes("encoder_model", features, vector.shape[0])
        heads = [keras.layers.Dense(latent_size) for _ in range(2)]
        whole = keras.Model(
            features.inputs, [head(features.output) for head in heads]
        )
        self.network = networks.KerasNetwork(vector, whole, _factors)

    def inferred(self, belief, transitions, weights):
        """Returns what is believed of tasks after these transitions, too.

        Args:
            belief: A `latent_belief.Belief` of `[tasks, latent_size]`.
            transitions: `Transitions` of tensors `[tasks, transitions, ...]`.
            weights: Float tensor `[tasks, transitions]`, 0 where there is no
                transition, and else 1.

        Returns:
            A `latent_belief.Belief`.
        """
        context = transitions._replace(
            action=self._in_units(transitions.action),
            reward=self._reward_scale * transitions.reward,
            discount=(),
        )
        vector = vectors.joined(context, self._spec())
        (means, variances), _ = self.network(vector)
        return latent_belief.updated(belief, means, variances, weights)


def _factors(outputs):
    mean, variance = outputs
    # So far above 0 that precisions and their sums stay finite.
    return mean, tf.nn.softplus(variance) + 1e-5
