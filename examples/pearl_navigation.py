"""
Title: PEARL on navigation
Description: A point infers where a goal is that it cannot see, and goes there.
Accelerator: None
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_meta
import keras_meta.rl
from keras_meta import figures

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--output", default="pearl_navigation_output", type=pathlib.Path
)
parser.add_argument("--steps", default=150, type=int)
parser.add_argument("--report", default=50, type=int)
parser.add_argument("--goals", default=16, type=int)
parser.add_argument("--horizon", default=20, type=int)
parser.add_argument("--rollouts", default=3, type=int)
parser.add_argument("--gradient-steps", default=50, type=int)
parser.add_argument("--learning-rate", default=3e-3, type=float)
parser.add_argument("--test-goals", default=100, type=int)
parser.add_argument("--test-rollouts", default=5, type=int)
parser.add_argument("--seeds", default=[0], type=int, nargs="+")
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)

"""
## The tasks

A goal in the plane, somewhere around the start. The point does not see it; the
rewards of a few rollouts, minus the distances to it, have to tell. A policy
for all goals can do no better than to stay in the middle.
"""

environment = keras_meta.rl.environments.PointNavigation(
    reward="distance", horizon=arguments.horizon
)
test_goals = environment.sample_tasks(arguments.test_goals, "test")


def paths_to(goals):
    """Returns what it gets who knows the goals."""
    position, total = np.zeros_like(goals), 0.0
    for _ in range(arguments.horizon):
        position = position + np.clip(goals - position, -0.1, 0.1)
        total = total - np.linalg.norm(goals - position, axis=1)
    return np.mean(total)


distances = np.linalg.norm(test_goals, axis=1)
print(f"who stays in the middle: {-arguments.horizon * distances.mean():.2f}")
print(f"who knows the goal: {paths_to(test_goals.numpy()):.2f}")

"""
## PEARL

All rollouts but the last are played on guesses from the prior: their distances
are measured at different places, which is what tells where the goal is.
"""


def make_agent():
    return keras_meta.rl.PEARLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        environment.horizon,
        # From where the point was, what it did, the reward, and where it is.
        encoder_model=keras_meta.backbones.mlp((7,), (128, 128), None),
        rollouts=arguments.rollouts,
        prior_rollouts=arguments.rollouts,
        gradient_steps=arguments.gradient_steps,
        discount=0.9,
    )


for seed in arguments.seeds:
    keras.utils.set_random_seed(seed)
    agent = make_agent()
    model = keras_meta.rl.AgentModel(agent, environment)
    model.compile(keras.optimizers.Adam(arguments.learning_rate))
    seconds = 0.0
    for steps in range(0, arguments.steps, arguments.report):
        count = min(arguments.report, arguments.steps - steps)
        start = time.perf_counter()
        model.fit(
            environment.tasks(arguments.goals, seed=1000 * seed + steps),
            steps_per_epoch=count,
            verbose=2,
        )
        seconds += time.perf_counter() - start
        curve = agent.evaluate(
            environment, test_goals, rollouts=arguments.test_rollouts
        )
        values = ", ".join(
            f"{mean:.2f} ± {interval:.2f}"
            for mean, interval in zip(curve.means, curve.intervals)
        )
        taken = (steps + count) * arguments.goals * (arguments.rollouts + 1)
        print(
            f"seed {seed}, {steps + count} outer steps, "
            f"{taken * arguments.horizon} environment steps, {seconds:.0f} s: "
            f"return after {curve.rollouts} rollouts: {values}"
        )

"""
## What it looks like

Rollouts to each of four goals, of the last agent: on guesses from the prior,
and the last one on what these have told.
"""

goals = tf.constant([[0.4, 0.4], [-0.4, 0.2], [-0.3, -0.4], [0.2, -0.3]])
experience = tf.function(
    lambda: agent.collect(environment, goals), autograph=False
)()
stages = experience.reward.shape[1]
figure = figures.figure_for(None, 3 * stages, 3.2)
axes = figure.subplots(1, stages, sharex=True, sharey=True)
for number, axis in enumerate(axes):
    last = number == stages - 1
    axis.set_title("after them" if last else f"rollout {number + 1}")
    axis.set_aspect("equal")
    axis.set(xlim=(-0.9, 0.9), ylim=(-0.9, 0.9))
    stage = tf.nest.map_structure(lambda leaf: leaf[:, number], experience)
    counted = keras_meta.rl.rollouts.first_rollout(stage).numpy().astype(bool)
    for task, goal in enumerate(goals.numpy()):
        path = stage.observation[task].numpy()[counted[task]]
        axis.plot(*path.T, ".-", color=f"C{task}", linewidth=1)
        axis.plot(*goal, "*", color=f"C{task}", markersize=14, mec="black")
path = output / "pearl_navigation.png"
figure.savefig(path, dpi=120)
print(f"picture: {path}")
