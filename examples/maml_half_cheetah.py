"""
Title: MAML for policies, on a robot
Description: A half cheetah of MuJoCo learns to run in the direction, or with
    the velocity, that a few rollouts tell.
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
    "--output", default="maml_half_cheetah_output", type=pathlib.Path
)
parser.add_argument(
    "--family", default="directions", choices=["directions", "velocities"]
)
parser.add_argument("--steps", default=240, type=int)
parser.add_argument("--tasks", default=10, type=int)
parser.add_argument("--rollouts", default=20, type=int)
parser.add_argument("--horizon", default=200, type=int)
parser.add_argument("--inner-steps", default=2, type=int)
parser.add_argument("--inner-learning-rate", default=0.1, type=float)
parser.add_argument("--learning-rate", default=3e-3, type=float)
parser.add_argument("--test-tasks", default=20, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)

"""
## The tasks

The robot does not see what it shall do. Rewards tell: its velocity in a
direction (of which there are two, so that no direction is unseen), or minus how
far its velocity is from the one wanted. The simulators run in processes of
their own.
"""

FAMILIES = {
    "directions": keras_meta.rl.environments.HalfCheetahDirections,
    "velocities": keras_meta.rl.environments.HalfCheetahVelocities,
}
environment = FAMILIES[arguments.family](horizon=arguments.horizon)

"""
## MAML

As on navigation, each inner step has to help, and the sizes of the steps are
learned.
"""

policy = keras_meta.rl.KerasDistributionNetwork(
    environment.observation_spec(),
    environment.action_spec(),
    keras_meta.backbones.mlp(
        environment.observation_spec().shape, (64, 64), None, "tanh"
    ),
    deviation=0.5,
)
agent = keras_meta.rl.MAMLAgent(
    environment.time_step_spec(),
    environment.action_spec(),
    policy,
    rollouts=arguments.rollouts,
    inner_steps=arguments.inner_steps,
    update_rule=keras_meta.update_rules.LearnedStepSizes(
        arguments.inner_learning_rate, arguments.inner_steps
    ),
    every_step=True,
)
model = keras_meta.rl.AgentModel(agent, environment)
model.compile(
    keras.optimizers.Adam(arguments.learning_rate, global_clipnorm=1.0)
)
epochs = min(20, arguments.steps)
steps = arguments.steps // epochs
start = time.perf_counter()
history = model.fit(
    environment.tasks(arguments.tasks, seed=arguments.seed),
    steps_per_epoch=steps,
    epochs=epochs,
    verbose=2,
).history
seconds = time.perf_counter() - start
taken = (
    (1 + arguments.inner_steps)
    * steps
    * epochs
    * arguments.tasks
    * arguments.rollouts
    * arguments.horizon
)
print(f"{taken:,} steps in {seconds:.0f} s, {taken / seconds:,.0f} a second")

"""
## What it has learned

The returns by training step, and how fast the robot runs in four tasks, before
and after an inner step.
"""

print(agent.evaluate(environment, tasks=arguments.test_tasks))
tasks = environment.sample_tasks(4, "test")
experience = tf.function(
    lambda: agent.collect(environment, tasks), autograph=False
)()

figure = figures.figure_for(None, 9, 3.5)
returns, velocities = figure.subplots(1, 2)
trained = steps * np.arange(1, epochs + 1)
for key, label in (("return_before", "before"), ("return_after", "after")):
    returns.plot(trained, history[key], label=f"{label} the inner steps")
returns.set(xlabel="outer steps", ylabel="return")
returns.legend()
# The ninth number of an observation is the velocity of the body.
for stage, style in ((experience.adaptation[0], ":"), (experience.query, "-")):
    velocity = stage.observation.numpy()[:, :, 8]
    by_task = velocity.reshape(4, arguments.rollouts, -1).mean(axis=1)
    for number, path in enumerate(by_task):
        velocities.plot(path, style, color=f"C{number}")
velocities.set(
    xlabel="steps", ylabel="velocity", title="before (dotted) and after"
)
path = output / f"maml_half_cheetah_{arguments.family}.png"
figure.savefig(path, dpi=120)
print(f"picture: {path}")
environment.close()
