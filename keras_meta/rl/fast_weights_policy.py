import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step

from keras_meta import inner_loop
from keras_meta.rl.choosing_policy import ChoosingPolicy
from keras_meta.rl.rows import row_count


class FastWeightsPolicy(ChoosingPolicy):
    """A policy whose state is the weights of its network, for each task.

    One batch of time steps then holds as many adapted policies as there are
    tasks: `rows / tasks` rows of each, which stand together.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        network: A `keras_meta.rl.KerasDistributionNetwork`.
        greedy: Boolean, whether to take the most likely action.
        name: String.
    """

    def __init__(
        self, time_step_spec, action_spec, network, greedy=False, name=None
    ):
        weights_spec = tuple(
            tensor_spec.TensorSpec(variable.shape, variable.dtype)
            for variable in network.trainable_weights
        )
        super().__init__(
            time_step_spec,
            action_spec,
            network,
            greedy,
            policy_state_spec=weights_spec,
            # The weights stay where a new rollout begins.
            automatic_state_reset=False,
            name=name,
        )

    def _get_initial_state(self, batch_size):
        weights = inner_loop.network_weights(self._network.model)
        if batch_size is None:
            return tuple(weights)
        return tuple(
            tf.repeat(weight[None], batch_size, axis=0) for weight in weights
        )

    def _distribution(self, time_step, policy_state):
        distribution = distribution_by_task(
            self._network, policy_state, time_step.observation
        )
        return policy_step.PolicyStep(distribution, policy_state, ())


def distribution_by_task(network, weights, observation):
    """Returns the distributions of actions, each row by its task's weights.

    Args:
        network: A `keras_meta.rl.KerasDistributionNetwork`.
        weights: Sequence of tensors `[tasks, ...]`.
        observation: Nested structure of tensors `[rows, ...]`; the rows of
            one task stand together.

    Returns:
        A distribution of `[rows, ...]`.
    """
    tasks = row_count(weights)

    def by_task(leaf):
        return tf.reshape(leaf, [tasks, -1, *leaf.shape[1:]])

    def by_row(leaf):
        return tf.reshape(leaf, [-1, *leaf.shape[2:]])

    def answer(task):
        weights, observation = task
        return forward(network, list(weights), observation)

    outputs = tf.vectorized_map(
        answer,
        (tuple(weights), tf.nest.map_structure(by_task, observation)),
    )
    return network.read(tf.nest.map_structure(by_row, outputs))


def forward(network, weights, observation):
    """Returns the outputs of a network's model with weights of one task."""
    model = network.model
    outputs, _ = inner_loop.forward(
        model,
        weights,
        inner_loop.network_state(model),
        observation,
        training=False,
        batch_statistics=False,
    )
    return outputs
