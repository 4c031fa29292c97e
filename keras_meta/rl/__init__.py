"""Meta-reinforcement learning: TF-Agents with Keras 3 networks.

Import it before `tf.keras` is used: TF-Agents needs that to be Keras 2.
"""

from keras_meta.rl import compatibility

compatibility.prepare()

from keras_meta.rl import agents
from keras_meta.rl import environments
from keras_meta.rl import outer_updates
from keras_meta.rl import sampling_gradients
from keras_meta.rl.agent_model import AgentModel
from keras_meta.rl.associative_cell import AssociativeCell
from keras_meta.rl.cavia_agent import CAVIAAgent
from keras_meta.rl.fine_tuning_agent import FineTuningAgent
from keras_meta.rl.learned_objective import LearnedObjective
from keras_meta.rl.learned_optimizer_agent import LearnedOptimizerAgent
from keras_meta.rl.maml_agent import MAMLAgent
from keras_meta.rl.meta_agent import MetaAgent
from keras_meta.rl.metagenrl_agent import MetaGenRLAgent
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
from keras_meta.rl.rollout_encoding import random_rollouts
from keras_meta.rl.rollout_encoding import rollout_encoder
from keras_meta.rl.rollout_encoding import rollout_pairs
from keras_meta.rl.rollouts import RolloutDriver
from keras_meta.rl.similar_task_agent import SimilarTaskAgent

__all__ = [
    "AgentModel",
    "AssociativeCell",
    "CAVIAAgent",
    "FineTuningAgent",
    "KerasActorNetwork",
    "KerasCriticNetwork",
    "KerasDistributionNetwork",
    "KerasNetwork",
    "KerasQNetwork",
    "KerasRecurrentNetwork",
    "KerasValueNetwork",
    "LearnedObjective",
    "LearnedOptimizerAgent",
    "MAMLAgent",
    "MetaAgent",
    "MetaGenRLAgent",
    "PEARLAgent",
    "RL2Agent",
    "ReptileAgent",
    "RolloutDriver",
    "SimilarTaskAgent",
    "agents",
    "environments",
    "outer_updates",
    "random_rollouts",
    "rollout_encoder",
    "rollout_pairs",
    "sampling_gradients",
]
