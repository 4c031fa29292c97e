import keras
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.agents.reinforce import reinforce_agent

from keras_meta import arguments
from keras_meta.rl import networks
from keras_meta.rl.agents import parts


def ppo(
    environment,
    model=None,
    learning_rate=1e-3,
    epochs=10,
    clip=0.2,
    discount=0.99,
    decay=0.95,
    entropy=0.0,
    deviation=1.0,
):
    """Returns a `PPOClipAgent`, for actions of any kind.

    It normalizes neither observations nor rewards: what that has learned in
    one task would be wrong in the next.

    Args:
        environment: A `TFEnvironment` of TF-Agents.
        model: A built `keras.Model` from observations to features, of which
            the networks get copies with new weights. `None` (the default)
            means two dense layers of 64 units.
        learning_rate: Float above 0. Defaults to `1e-3`.
        epochs: Integer of 1 or more, how often rollouts are trained on. Each
            one is traced by itself. Defaults to `10`.
        clip: Float above 0, by what share the chance of an action may
            change. Defaults to `0.2`.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        decay: Float from 0 to 1, the decay of generalized advantages.
            Defaults to `0.95`.
        entropy: Float from 0, how much the entropy of the policy counts.
            Defaults to `0.0`.
        deviation: Float above 0, where the standard deviation of real
            actions starts, in units of their bounds. Defaults to `1.0`.

    Returns:
        An agent of TF-Agents.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    agent = keras_meta.rl.agents.ppo(environment, learning_rate=3e-3)
    ```

    Reference:
        - [Schulman et al., 2017](https://arxiv.org/abs/1707.06347)
    """
    arguments.check_positive_number("learning_rate", learning_rate)
    arguments.check_positive_integer("epochs", epochs)
    arguments.check_positive_number("clip", clip)
    arguments.check_share("discount", discount)
    arguments.check_share("decay", decay)
    arguments.check_number_from_zero("entropy", entropy)
    policy, value = _policy_and_value(environment, model, deviation)
    return ppo_clip_agent.PPOClipAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        keras.optimizers.Adam(learning_rate),
        policy,
        value,
        importance_ratio_clipping=clip,
        lambda_value=decay,
        discount_factor=discount,
        entropy_regularization=entropy,
        num_epochs=epochs,
        use_gae=True,
        use_td_lambda_return=True,
        normalize_rewards=False,
        normalize_observations=False,
        train_step_counter=parts.step_counter(),
    )


def reinforce(
    environment,
    model=None,
    learning_rate=1e-3,
    discount=0.99,
    entropy=0.0,
    deviation=1.0,
):
    """Returns a `ReinforceAgent` with a value network as its baseline.

    Args:
        environment: A `TFEnvironment` of TF-Agents.
        model: A built `keras.Model` from observations to features, of which
            the networks get copies with new weights. `None` (the default)
            means two dense layers of 64 units.
        learning_rate: Float above 0. Defaults to `1e-3`.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        entropy: Float from 0, how much the entropy of the policy counts.
            Defaults to `0.0`.
        deviation: Float above 0, where the standard deviation of real
            actions starts, in units of their bounds. Defaults to `1.0`.

    Returns:
        An agent of TF-Agents.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    agent = keras_meta.rl.agents.reinforce(environment, learning_rate=3e-3)
    ```

    Reference:
        - [Williams, 1992](https://doi.org/10.1007/BF00992696)
    """
    arguments.check_positive_number("learning_rate", learning_rate)
    arguments.check_share("discount", discount)
    arguments.check_number_from_zero("entropy", entropy)
    policy, value = _policy_and_value(environment, model, deviation)
    return reinforce_agent.ReinforceAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        policy,
        keras.optimizers.Adam(learning_rate),
        value_network=value,
        value_estimation_loss_coef=0.5,
        gamma=discount,
        entropy_regularization=entropy or None,
        train_step_counter=parts.step_counter(),
    )


def _policy_and_value(environment, model, deviation):
    """Returns the networks of an agent on policy."""
    observation = environment.observation_spec()
    policy = networks.KerasDistributionNetwork(
        observation,
        environment.action_spec(),
        parts.features(model, observation),
        deviation=deviation,
    )
    value = networks.KerasValueNetwork(
        observation, parts.features(model, observation)
    )
    return policy, value
