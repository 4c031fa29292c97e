import keras
from tf_agents.agents.dqn import dqn_agent

from keras_meta import arguments
from keras_meta.rl import networks
from keras_meta.rl.agents import parts


def dqn(
    environment,
    model=None,
    learning_rate=1e-3,
    exploration=0.1,
    discount=0.99,
    target_rate=0.05,
):
    """Returns a `DdqnAgent`, a DQN with double Q-learning.

    Args:
        environment: A `TFEnvironment` of TF-Agents whose actions are one
            integer from 0.
        model: A built `keras.Model` from observations to features, of which
            the network gets a copy with new weights. `None` (the default)
            means two dense layers of 64 units.
        learning_rate: Float above 0. Defaults to `1e-3`.
        exploration: Float from 0 to 1, how often an action is drawn at
            random while rollouts are collected. Defaults to `0.1`.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        target_rate: Float from 0 to 1, how far the target network follows in
            each step. Defaults to `0.05`.

    Returns:
        An agent of TF-Agents.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.Bandits(arms=5)
    agent = keras_meta.rl.agents.dqn(environment, exploration=0.2)
    ```

    Reference:
        - [Mnih et al., 2015](https://doi.org/10.1038/nature14236)
        - [van Hasselt et al., 2015](https://arxiv.org/abs/1509.06461)
    """
    arguments.check_positive_number("learning_rate", learning_rate)
    arguments.check_share("exploration", exploration)
    arguments.check_share("discount", discount)
    arguments.check_share("target_rate", target_rate)
    observation = environment.observation_spec()
    return dqn_agent.DdqnAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        networks.KerasQNetwork(
            observation,
            environment.action_spec(),
            parts.features(model, observation),
        ),
        keras.optimizers.Adam(learning_rate),
        epsilon_greedy=exploration,
        target_update_tau=target_rate,
        gamma=discount,
        train_step_counter=parts.step_counter(),
    )
