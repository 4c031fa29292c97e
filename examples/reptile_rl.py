"""
Title: Reptile for agents, on and off policy
Description: PPO and DDPG that find an unseen goal within a few rollouts.
Accelerator: None
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_meta.rl
from keras_meta import figures

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="reptile_rl_output", type=pathlib.Path)
parser.add_argument("--agents", default="ppo,ddpg")
parser.add_argument("--steps", default=60, type=int)
parser.add_argument("--rollouts", default=10, type=int)
parser.add_argument("--test-iterations", default=8, type=int)
parser.add_argument("--horizon", default=30, type=int)
parser.add_argument("--tasks", default=40, type=int)
parser.add_argument("--split", default="test", help="or validation, to choose")
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)
started = time.time()

META_BATCH_SIZE, INNER_ITERATIONS = 4, 4


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Goals, and agents

A point in the plane shall go to a goal that it cannot see; the reward tells how
far it is. Each goal is a task. The agents are those of TF-Agents, with networks
of Keras. PPO learns from the rollouts that it has just made, DDPG from all that
it has made in the task.

Settings were chosen on the split "validation".
"""

environment = keras_meta.rl.environments.PointNavigation(
    reward="distance", horizon=arguments.horizon, seed=arguments.seed
)


def ppo():
    # Without the entropy, training leaves a policy that no longer explores.
    return keras_meta.rl.agents.ppo(
        environment, learning_rate=3e-3, epochs=5, entropy=0.3, deviation=0.5
    )


def ddpg():
    return keras_meta.rl.agents.ddpg(
        environment, learning_rate=3e-3, noise=0.3, discount=0.9
    )


SETTINGS = dict(
    rollouts=arguments.rollouts,
    inner_iterations=INNER_ITERATIONS,
    gradient_steps=30,
)

"""
## Three ways to begin

Reptile moves the shared weights half of the way to where training in each of
four tasks leads. Fine-tuning is ordinary training on as many rollouts, of all
tasks together; an agent that was never trained begins from scratch. In a new
task, all three are then trained alike.
"""


def learners(make_agent):
    """Returns agents by name, and their steps of training."""
    yield (
        "Reptile",
        keras_meta.rl.ReptileAgent(
            make_agent, keras.optimizers.SGD(0.5), **SETTINGS
        ),
        arguments.steps,
    )
    yield (
        "fine-tuning",
        keras_meta.rl.FineTuningAgent(make_agent, **SETTINGS),
        arguments.steps * INNER_ITERATIONS,
    )
    yield (
        "from scratch",
        keras_meta.rl.FineTuningAgent(make_agent, **SETTINGS),
        0,
    )


tasks = environment.sample_tasks(arguments.tasks, arguments.split)
curves = {}
for make_agent in (ppo, ddpg):
    kind = make_agent.__name__
    if kind not in arguments.agents.split(","):
        continue
    curves[kind] = {}
    for name, agent, steps in learners(make_agent):
        heading(f"{kind}, {name}: {steps} steps of training")
        if steps:
            model = keras_meta.rl.AgentModel(agent, environment)
            model.compile()
            epochs = min(3, steps)
            model.fit(
                environment.tasks(META_BATCH_SIZE, seed=arguments.seed),
                steps_per_epoch=steps // epochs,
                epochs=epochs,
                verbose=2,
            )
        curves[kind][name] = agent.evaluate(
            environment, tasks, arguments.rollouts * arguments.test_iterations
        )
        print(curves[kind][name], flush=True)

"""
## One goal, and an ordinary policy

`adapt()` takes any environment of TF-Agents, and returns a policy of TF-Agents.
"""

heading("One goal")
environment.set_tasks(tasks[0])
policy = agent.adapt(environment, rollouts=arguments.rollouts)
step = environment.reset()
for _ in range(3):
    step = environment.step(policy.action(step).action)
place = step.observation.numpy()[0]
print(f"goal {tasks[0].numpy().round(2)}, after three steps {place.round(2)}")

heading("A picture")
figure = figures.figure_for(None, 5.5 * len(curves), 4.2)
axes = figure.subplots(1, len(curves), squeeze=False)[0]
for axis, (kind, of_kind) in zip(axes, curves.items()):
    for name, curve in of_kind.items():
        axis.plot(curve.rollouts, curve.means, marker="o", label=name)
        axis.fill_between(
            curve.rollouts,
            curve.means - curve.intervals,
            curve.means + curve.intervals,
            alpha=0.2,
        )
    axis.set_title(f"{kind.upper()}, {arguments.tasks} unseen goals")
    axis.set_xlabel("rollouts in the new task")
    axis.set_ylabel("return of the policy")
    axis.legend()
picture_path = output / "reptile_rl.png"
figure.savefig(picture_path, dpi=110)

heading("Done")
print(f"picture: {picture_path.resolve()}")
