"""Agents of TF-Agents with networks of Keras 3, made for an environment.

Each call makes an agent of its own: `lambda: agents.ppo(environment)` is what
`ReptileAgent` and `FineTuningAgent` take.
"""

from keras_meta.rl.agents.actor_critics import ddpg
from keras_meta.rl.agents.actor_critics import sac
from keras_meta.rl.agents.actor_critics import td3
from keras_meta.rl.agents.deep_q_learning import dqn
from keras_meta.rl.agents.policy_optimization import ppo
from keras_meta.rl.agents.policy_optimization import reinforce

__all__ = ["ddpg", "dqn", "ppo", "reinforce", "sac", "td3"]
