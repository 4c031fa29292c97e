import tensorflow as tf
from tf_agents.policies import tf_policy


class RowNoisePolicy(tf_policy.TFPolicy):
    """Normal noise on the actions of a policy, in each row its own.

    The policies of TF-Agents add the same noise to all rows of a batch; where
    the environment is not random itself, its rollouts would all be alike.

    Args:
        policy: A `tf_agents` policy of real actions with bounds, within which
            they are kept.
        deviation: Float, or array of the shape of an action, the standard
            deviation of the noise.
        name: String.
    """

    def __init__(self, policy, deviation, name=None):
        super().__init__(
            policy.time_step_spec,
            policy.action_spec,
            policy.policy_state_spec,
            policy.info_spec,
            clip=True,
            name=name,
        )
        self._policy = policy
        self._deviation = deviation

    def _variables(self):
        return self._policy.variables()

    def _action(self, time_step, policy_state, seed=None):
        step = self._policy.action(time_step, policy_state, seed)
        noise = tf.random.normal(tf.shape(step.action))
        return step._replace(action=step.action + self._deviation * noise)

    def _distribution(self, time_step, policy_state):
        raise NotImplementedError("Noisy actions have no distribution.")
