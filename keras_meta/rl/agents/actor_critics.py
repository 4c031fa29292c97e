"""Agents for real actions: an actor, and one critic or two."""

import keras
import tensorflow as tf
from tf_agents.agents.ddpg import ddpg_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.agents.td3 import td3_agent
from tf_agents.policies import actor_policy

from keras_meta import arguments
from keras_meta.rl import heads
from keras_meta.rl import networks
from keras_meta.rl.agents import parts
from keras_meta.rl.row_noise_policy import RowNoisePolicy


def ddpg(
    environment,
    model=None,
    critic_model=None,
    learning_rate=1e-3,
    noise=0.2,
    discount=0.99,
    target_rate=0.05,
):
    """Returns a `DdpgAgent`, for real actions with bounds.

    It explores by normal noise, and not by that of Ornstein and Uhlenbeck,
    which in TF-Agents is the same in all rows of a batch: rollouts in one
    task would be alike.

    Args:
        environment: A `TFEnvironment` of TF-Agents whose actions are one
            real vector with bounds.
        model: A built `keras.Model` from observations to features, of which
            the actor gets a copy with new weights. `None` (the default)
            means two dense layers of 64 units.
        critic_model: The same for the critic; from the observation and the
            action, joined to one vector.
        learning_rate: Float above 0. Defaults to `1e-3`.
        noise: Float from 0, the standard deviation of the noise on actions
            while rollouts are collected, in units of their bounds. Defaults
            to `0.2`.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        target_rate: Float from 0 to 1, how far the target networks follow in
            each step. Defaults to `0.05`.

    Returns:
        An agent of TF-Agents.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    agent = keras_meta.rl.agents.ddpg(environment, noise=0.3)
    ```

    Reference:
        - [Lillicrap et al., 2015](https://arxiv.org/abs/1509.02971)
    """
    arguments.check_number_from_zero("noise", noise)
    actor = _actor(environment, model)
    agent = ddpg_agent.DdpgAgent(
        **_actor_and_critic(
            environment,
            actor,
            critic_model,
            learning_rate,
            discount,
            target_rate,
        )
    )
    return _with_row_noise(agent, actor, noise)


def td3(
    environment,
    model=None,
    critic_model=None,
    learning_rate=1e-3,
    noise=0.2,
    discount=0.99,
    target_rate=0.05,
):
    """Returns a `Td3Agent`, for real actions with bounds.

    Its noise differs from row to row, which that of TF-Agents does not.

    Args:
        environment: As for `ddpg()`.
        model: As for `ddpg()`.
        critic_model: As for `ddpg()`; there are two critics.
        learning_rate: Float above 0. Defaults to `1e-3`.
        noise: As for `ddpg()`. The noise on actions of the target is as
            large, and kept within two and a half times that.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        target_rate: Float from 0 to 1, how far the target networks follow in
            each step. Defaults to `0.05`.

    Returns:
        An agent of TF-Agents.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    agent = keras_meta.rl.agents.td3(environment)
    ```

    Reference:
        - [Fujimoto et al., 2018](https://arxiv.org/abs/1802.09477)
    """
    arguments.check_number_from_zero("noise", noise)
    actor = _actor(environment, model)
    target_noise = noise * _reach(environment.action_spec())
    agent = td3_agent.Td3Agent(
        **_actor_and_critic(
            environment,
            actor,
            critic_model,
            learning_rate,
            discount,
            target_rate,
        ),
        actor_update_period=2,
        target_policy_noise=target_noise,
        target_policy_noise_clip=2.5 * target_noise,
    )
    return _with_row_noise(agent, actor, noise)


def sac(
    environment,
    model=None,
    critic_model=None,
    learning_rate=1e-3,
    discount=0.99,
    target_rate=0.05,
):
    """Returns a `SacAgent`, for real actions with bounds.

    Args:
        environment: As for `ddpg()`.
        model: As for `ddpg()`.
        critic_model: As for `ddpg()`; there are two critics.
        learning_rate: Float above 0. Defaults to `1e-3`.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        target_rate: Float from 0 to 1, how far the target networks follow in
            each step. Defaults to `0.05`.

    Returns:
        An agent of TF-Agents.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    agent = keras_meta.rl.agents.sac(environment)
    ```

    Reference:
        - [Haarnoja et al., 2018](https://arxiv.org/abs/1812.05905)
    """
    _reach(environment.action_spec())
    observation = environment.observation_spec()
    actor = networks.KerasDistributionNetwork(
        observation,
        environment.action_spec(),
        parts.features(model, observation),
        head="squashed",
    )
    return sac_agent.SacAgent(
        **_actor_and_critic(
            environment,
            actor,
            critic_model,
            learning_rate,
            discount,
            target_rate,
        ),
        alpha_optimizer=keras.optimizers.Adam(learning_rate),
        td_errors_loss_fn=tf.math.squared_difference,
    )


def _actor_and_critic(
    environment, actor, critic_model, learning_rate, discount, target_rate
):
    """Returns the arguments that agents with an actor and a critic share."""
    arguments.check_positive_number("learning_rate", learning_rate)
    arguments.check_share("discount", discount)
    arguments.check_share("target_rate", target_rate)
    specs = (environment.observation_spec(), environment.action_spec())
    return {
        "time_step_spec": environment.time_step_spec(),
        "action_spec": environment.action_spec(),
        "actor_network": actor,
        "critic_network": networks.KerasCriticNetwork(
            specs, parts.features(critic_model, *specs)
        ),
        "actor_optimizer": keras.optimizers.Adam(learning_rate),
        "critic_optimizer": keras.optimizers.Adam(learning_rate),
        "gamma": discount,
        "target_update_tau": target_rate,
        "train_step_counter": parts.step_counter(),
    }


def _actor(environment, model):
    observation = environment.observation_spec()
    return networks.KerasActorNetwork(
        observation,
        environment.action_spec(),
        parts.features(model, observation),
    )


def _reach(action_spec):
    """Returns how far actions go from the middle of their bounds."""
    _, reach = heads.bounds(action_spec)
    if reach is None:
        raise ValueError(
            "The actions must be real, with bounds. Received: action_spec="
            f"{action_spec}. Take `ppo()` or `dqn()`."
        )
    return reach


def _with_row_noise(agent, actor, noise):
    """Gives an agent's policy of collecting noise of each row's own."""
    policy = actor_policy.ActorPolicy(
        agent.time_step_spec, agent.action_spec, actor, clip=False
    )
    agent._collect_policy = RowNoisePolicy(
        policy, noise * _reach(agent.action_spec)
    )
    return agent
