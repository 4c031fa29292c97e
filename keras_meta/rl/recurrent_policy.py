import tensorflow as tf
from tf_agents.trajectories import policy_step

from keras_meta.rl.choosing_policy import ChoosingPolicy


class RecurrentPolicy(ChoosingPolicy):
    """A policy with a memory, which may have seen something before it starts.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        network: A `keras_meta.rl.KerasRecurrentNetwork` that returns
            distributions.
        greedy: Boolean, whether to take the most likely action.
        memory: List of tensors `[size]`, the state of the network in which
            each episode of the environment starts. `None` (the default)
            means zeros.
        name: String.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network,
        greedy=False,
        memory=None,
        name=None,
    ):
        super().__init__(
            time_step_spec,
            action_spec,
            network,
            greedy,
            policy_state_spec=network.state_spec,
            name=name,
        )
        self._memory = None
        if memory is not None:
            self._memory = [
                tf.Variable(part, trainable=False) for part in memory
            ]

    def _get_initial_state(self, batch_size):
        parts = self._memory
        if parts is None:
            parts = [
                tf.zeros(spec.shape, spec.dtype)
                for spec in self.policy_state_spec
            ]
        if batch_size is None:
            return [tf.convert_to_tensor(part) for part in parts]
        return [tf.repeat(part[None], batch_size, axis=0) for part in parts]

    def _distribution(self, time_step, policy_state):
        # Without `step_type`: where an episode begins, the state is already
        # the initial one, which the network would clear.
        distribution, policy_state = self._network(
            time_step.observation, network_state=policy_state
        )
        return policy_step.PolicyStep(distribution, policy_state, ())
