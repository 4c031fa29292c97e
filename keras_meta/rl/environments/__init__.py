"""Families of tasks: distributions over environments of TF-Agents."""

from keras_meta.rl.environments.bandits import Bandits
from keras_meta.rl.environments.cart_poles import CartPoles
from keras_meta.rl.environments.gymnasium_tasks import GymnasiumTasks
from keras_meta.rl.environments.half_cheetah import HalfCheetahDirections
from keras_meta.rl.environments.half_cheetah import HalfCheetahVelocities
from keras_meta.rl.environments.mazes import Mazes
from keras_meta.rl.environments.pendulums import Pendulums
from keras_meta.rl.environments.point_navigation import PointNavigation
from keras_meta.rl.environments.scheduling import Scheduling
from keras_meta.rl.environments.tabular_mdps import TabularMDPs
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import TaskFamily
from keras_meta.rl.environments.trials import Trials

__all__ = [
    "Bandits",
    "CartPoles",
    "GraphTaskFamily",
    "GymnasiumTasks",
    "HalfCheetahDirections",
    "HalfCheetahVelocities",
    "Mazes",
    "Pendulums",
    "PointNavigation",
    "Scheduling",
    "TabularMDPs",
    "TaskFamily",
    "Trials",
]
