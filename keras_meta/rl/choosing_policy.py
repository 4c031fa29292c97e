import tensorflow as tf
from tf_agents.policies import tf_policy


class ChoosingPolicy(tf_policy.TFPolicy):
    """A policy that draws actions, or takes the most likely ones.

    A subclass writes `_distribution()` and `_get_initial_state()`. Actions are
    not clipped: environments do that, and agents learn from what was drawn.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        network: What the policy asks, for the subclass.
        greedy: Boolean, whether to take the most likely action.
        **kwargs: Arguments of `TFPolicy`.
    """

    def __init__(self, time_step_spec, action_spec, network, greedy, **kwargs):
        super().__init__(time_step_spec, action_spec, clip=False, **kwargs)
        self._network = network
        self._greedy = greedy

    def _choices(self, time_step, policy_state):
        """Returns the distribution to choose from, as a `PolicyStep`."""
        return self._distribution(time_step, policy_state)

    def _action(self, time_step, policy_state, seed=None):
        step = self._choices(time_step, policy_state)
        distribution = step.action
        if self._greedy:
            action = distribution.mode()
        else:
            action = distribution.sample(seed=seed)
        return step._replace(action=tf.cast(action, self.action_spec.dtype))
