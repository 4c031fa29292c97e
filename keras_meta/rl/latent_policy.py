import tensorflow as tf
from tf_agents.trajectories import policy_step

from keras_meta.rl import latent_belief
from keras_meta.rl import vectors
from keras_meta.rl.choosing_policy import ChoosingPolicy


class LatentPolicy(ChoosingPolicy):
    """A policy whose state is a guess of what the task is.

    Its initial state is drawn from what is believed of the task, in each row
    another guess, and stays the same while the policy acts.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        network: A network from an observation and the latent variable, joined
            to one vector, to a distribution of actions.
        latent_size: Integer, the size of the latent variable.
        greedy: Boolean, whether to take the most likely action.
        belief: A `latent_belief.Belief` of one task, `[1, latent_size]`.
            `None` (the default) means the prior.
        name: String.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network,
        latent_size,
        greedy=False,
        belief=None,
        name=None,
    ):
        super().__init__(
            time_step_spec,
            action_spec,
            network,
            greedy,
            policy_state_spec=tf.TensorSpec([latent_size], tf.float32),
            # The guess stays where a new rollout begins: who collects draws.
            automatic_state_reset=False,
            name=name,
        )
        if belief is None:
            belief = latent_belief.prior(1, latent_size)
        self._mean, self._variance = [
            tf.Variable(part, trainable=False) for part in belief
        ]

    @property
    def belief(self):
        """What is believed of the task, a `latent_belief.Belief`."""
        return latent_belief.Belief(
            tf.convert_to_tensor(self._mean),
            tf.convert_to_tensor(self._variance),
        )

    def _get_initial_state(self, batch_size):
        rows = 1 if batch_size is None else batch_size
        guesses = latent_belief.draw(
            latent_belief.Belief(
                *[tf.repeat(part, rows, axis=0) for part in self.belief]
            )
        )
        return guesses[0] if batch_size is None else guesses

    def _distribution(self, time_step, policy_state):
        # `PolicySaver` would save it, and what it saves could not be loaded
        # in plain TensorFlow, which does not know squashed distributions.
        raise NotImplementedError(
            "A `LatentPolicy` gives actions, and not their distribution."
        )

    def _choices(self, time_step, policy_state):
        distribution, _ = self._network(
            vectors.joined(
                (time_step.observation, policy_state),
                (self.time_step_spec.observation, self.policy_state_spec),
            )
        )
        return policy_step.PolicyStep(distribution, policy_state, ())
