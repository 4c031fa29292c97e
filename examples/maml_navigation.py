"""
Title: MAML for policies, on navigation
Description: A point learns to find a goal it cannot see within a few rollouts.
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
    "--output", default="maml_navigation_output", type=pathlib.Path
)
parser.add_argument("--steps", default=500, type=int)
parser.add_argument("--report", default=100, type=int)
parser.add_argument("--goals", default=20, type=int)
parser.add_argument("--rollouts", default=20, type=int)
parser.add_argument("--inner-steps", default=3, type=int)
parser.add_argument("--inner-learning-rate", default=0.5, type=float)
parser.add_argument("--learning-rate", default=3e-3, type=float)
parser.add_argument("--test-goals", default=100, type=int)
parser.add_argument("--test-rollouts", default=[20, 40], type=int, nargs="+")
parser.add_argument(
    "--reward", default="distance", choices=["distance", "squared_distance"]
)
parser.add_argument("--outer-update", default="ppo")
parser.add_argument("--pooled-steps", default=300, type=int)
parser.add_argument("--seeds", default=[0, 1, 2], type=int, nargs="+")
arguments = parser.parse_args()

# The outer step is twice as fast with one thread for each operation, and
# several operations at once.
tf.config.threading.set_intra_op_parallelism_threads(1)

output = arguments.output
output.mkdir(parents=True, exist_ok=True)

"""
## The tasks

A goal in the plane, somewhere around the start. The point does not see it: it
has to be told by the rewards of a few rollouts. The figures of the paper of
MAML were made with minus the distance as reward, as its code has it; the paper
says minus its square. `--reward` chooses.
"""

environment = keras_meta.rl.environments.PointNavigation(
    reward=arguments.reward
)

"""
## MAML

The outer loss counts the policies after each inner step (`every_step`), and
not only after the last one, so that each step helps. How large a step is, is
learned for each layer and step.
"""


def make_agent():
    policy = keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((2,), (64, 64), None, activation="tanh"),
    )
    return keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        policy,
        inner_steps=arguments.inner_steps,
        rollouts=arguments.rollouts,
        update_rule=keras_meta.update_rules.LearnedStepSizes(
            arguments.inner_learning_rate, arguments.inner_steps
        ),
        every_step=True,
        outer_update=arguments.outer_update,
    )


def report(name, agent, rollouts):
    """Measures on goals that no training has seen."""
    curve = agent.evaluate(
        environment,
        tasks=arguments.test_goals,
        rollouts=rollouts * arguments.inner_steps,
    )
    values = ", ".join(
        f"{mean:.2f} ± {interval:.2f}"
        for mean, interval in zip(curve.means, curve.intervals)
    )
    print(f"{name}: return after {curve.rollouts} rollouts: {values}")
    return curve


curves = {}
for seed in arguments.seeds:
    keras.utils.set_random_seed(seed)
    agent = make_agent()
    model = keras_meta.rl.AgentModel(agent, environment)
    rate = keras.optimizers.schedules.CosineDecay(
        arguments.learning_rate,
        arguments.steps * agent.outer_update.epochs,
        alpha=0.05,
    )
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
    start = time.perf_counter()
    for steps in range(0, arguments.steps, arguments.report):
        count = min(arguments.report, arguments.steps - steps)
        model.fit(
            environment.tasks(arguments.goals, seed=1000 * seed + steps),
            steps_per_epoch=count,
            verbose=2,
        )
        if steps == 0 or steps + count == arguments.steps:
            for rollouts in arguments.test_rollouts:
                curves[steps + count, rollouts, seed] = report(
                    f"seed {seed}, {steps + count} outer steps", agent, rollouts
                )
    seconds = time.perf_counter() - start
    print(f"seed {seed}: {seconds:.0f} s")

for steps, rollouts in sorted({key[:2] for key in curves}):
    means = np.array(
        [curves[steps, rollouts, seed].means for seed in arguments.seeds]
    )
    print(
        f"{steps} outer steps, {rollouts} rollouts a step, mean over "
        f"{len(means)} seeds: "
        + ", ".join(f"{value:.2f}" for value in means.mean(axis=0))
    )

"""
## Without learning to adapt

The baseline: PPO trained on all goals together, which can do no better than to
stay in the middle, and then trained on with as many rollouts to one goal.
"""

if arguments.pooled_steps:
    keras.utils.set_random_seed(arguments.seeds[0])
    pooled = keras_meta.rl.FineTuningAgent(
        lambda: keras_meta.rl.agents.ppo(environment, learning_rate=3e-3),
        rollouts=arguments.rollouts,
        inner_iterations=arguments.inner_steps,
    )
    model = keras_meta.rl.AgentModel(pooled, environment)
    model.compile()
    model.fit(
        environment.tasks(arguments.goals),
        steps_per_epoch=arguments.pooled_steps,
        verbose=2,
    )
    report("PPO on all goals together", pooled, arguments.rollouts)

"""
## What it looks like

The paths of three rollouts to each of four goals, before and after each inner
step, of the last agent.
"""

goals = tf.constant([[0.4, 0.4], [-0.4, 0.2], [-0.3, -0.4], [0.2, -0.3]])
experience = tf.function(
    lambda: agent.collect(environment, goals), autograph=False
)()
stages = [*experience.adaptation, experience.query]
figure = figures.figure_for(None, 3 * len(stages), 3.2)
axes = figure.subplots(1, len(stages), sharex=True, sharey=True)
for number, (axis, stage) in enumerate(zip(axes, stages)):
    axis.set_title("before" if number == 0 else f"after step {number}")
    axis.set_aspect("equal")
    axis.set(xlim=(-0.9, 0.9), ylim=(-0.9, 0.9))
    counted = keras_meta.rl.rollouts.first_rollout(stage).numpy().astype(bool)
    for task, goal in enumerate(goals.numpy()):
        for rollout in range(min(3, arguments.rollouts)):
            row = task * arguments.rollouts + rollout
            path = stage.observation[row].numpy()[counted[row]]
            axis.plot(*path.T, color=f"C{task}", alpha=0.5, linewidth=1)
        axis.plot(*goal, "*", color=f"C{task}", markersize=14, mec="black")
path = output / "maml_navigation.png"
figure.savefig(path, dpi=120)
print(f"picture: {path}")
