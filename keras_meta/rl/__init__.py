"""Meta-reinforcement learning: TF-Agents with Keras 3 networks.

Import it before `tf.keras` is used: TF-Agents needs that to be Keras 2.
"""

from keras_meta.rl import compatibility

compatibility.prepare()

from keras_meta.rl import agents
from keras_meta.rl import environments
from keras_meta.rl import outer_updates
from keras_meta.rl.agent_model import AgentModel
from keras_meta.rl.fine_tuning_agent import FineTuningAgent
from keras_meta.rl.maml_agent import MAMLAgent
from keras_meta.rl.meta_agent import MetaAgent
from keras_meta.rl.networks import KerasActorNetwork
from keras_meta.rl.networks import KerasCriticNetwork
from keras_meta.rl.networks import KerasDistributionNetwork
from keras_meta.rl.networks import KerasNetwork
from keras_meta.rl.networks import KerasQNetwork
from keras_meta.rl.networks import KerasValueNetwork
from keras_meta.rl.pearl_agent import PEARLAgent
from keras_meta.rl.recurrent_network import KerasRecurrentNetwork
from keras_meta.rl.reptile_agent import ReptileAgent
from keras_meta.rl.rl2_agent import RL2Agent
from keras_meta.rl.rollouts import RolloutDriver

__all__ = [
    "AgentModel",
    "FineTuningAgent",
    "KerasActorNetwork",
    "KerasCriticNetwork",
    "KerasDistributionNetwork",
    "KerasNetwork",
    "KerasQNetwork",
    "KerasRecurrentNetwork",
    "KerasValueNetwork",
    "MAMLAgent",
    "MetaAgent",
    "PEARLAgent",
    "RL2Agent",
    "ReptileAgent",
    "RolloutDriver",
    "agents",
    "environments",
    "outer_updates",
]
