"""
Title: An optimizer that is learned, for policies
Description: An LSTM that trains new policies, against SGD and Adam.
Accelerator: None
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_meta
import keras_meta.rl
from keras_meta import figures

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--output", default="learned_optimizer_rl_output", type=pathlib.Path
)
parser.add_argument("--steps", default=300, type=int)
parser.add_argument("--goals", default=20, type=int)
parser.add_argument("--inner-steps", default=5, type=int)
parser.add_argument("--rollouts", default=10, type=int)
parser.add_argument("--horizon", default=10, type=int)
parser.add_argument("--learning-rate", default=3e-3, type=float)
parser.add_argument(
    "--rates",
    default=[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0],
    type=float,
    nargs="+",
)
parser.add_argument("--test-goals", default=200, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)
started = time.time()


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## New policies, to be trained in a few steps

A point in the plane shall go to a goal that it cannot see. In each task there
is another goal, and a policy with new random weights, which is trained by the
policy gradients of a few rollouts each. How they become steps is up to a rule.
"""

environment = keras_meta.rl.environments.PointNavigation(
    reward="distance", horizon=arguments.horizon, seed=arguments.seed
)


def make_agent(rule):
    policy = keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((2,), (16,), None, activation="tanh"),
    )
    return keras_meta.rl.LearnedOptimizerAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        policy,
        update_rule=rule,
        inner_steps=arguments.inner_steps,
        rollouts=arguments.rollouts,
    )


def returns(agent, tasks):
    rollouts = arguments.rollouts * arguments.inner_steps
    return agent.evaluate(environment, tasks, rollouts)


"""
## The learned rule

An LSTM for each weight reads its gradients, and says by how much it moves. It
is trained by the returns of the policies after each of their steps.
"""

heading(f"Learning to train policies: {arguments.steps} outer steps")
learned = make_agent(keras_meta.update_rules.CoordinatewiseLSTM())
print(f"{learned.update_rule.count_params()} numbers are learned.")
model = keras_meta.rl.AgentModel(learned, environment)
model.compile(
    keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(
            arguments.learning_rate, arguments.steps, 0.03
        ),
        global_clipnorm=1.0,
    )
)
epochs = min(3, arguments.steps)
model.fit(
    environment.tasks(arguments.goals, seed=arguments.seed),
    steps_per_epoch=arguments.steps // epochs,
    epochs=epochs,
    verbose=2,
)

"""
## SGD and Adam, each at its best rate

The rates are chosen on validation goals, by the return after the last step, and
those that are reported were seen by nobody before.
"""

RULES = {
    "SGD": keras_meta.update_rules.GradientDescent,
    "Adam": keras_meta.update_rules.Adam,
}
validation = environment.sample_tasks(arguments.test_goals, "validation")
test = environment.sample_tasks(arguments.test_goals, "test")
agents = {"learned": learned}
for name, make_rule in RULES.items():
    heading(f"{name}: its best rate")
    best = -np.inf
    for rate in arguments.rates:
        agent = make_agent(make_rule(rate))
        # What diverged is as bad as it gets.
        means = np.nan_to_num(returns(agent, validation).means, nan=-1e9)
        print(f"rate {rate}: {means[-1]:.2f}", flush=True)
        if means[-1] > best:
            best, agents[name] = means[-1], agent

heading("Goals that nobody has seen")
curves = {}
for name, agent in agents.items():
    curve = curves[name] = returns(agent, test)
    print(f"{name}: returns after {curve.rollouts} rollouts")
    for mean, interval in zip(curve.means, curve.intervals):
        print(f"    {mean:.2f} ± {interval:.2f}")
after = {name: curve.values[:, -1] for name, curve in curves.items()}
for name in RULES:
    # Goal by goal, which differ more than the rules do.
    gain = after["learned"] - after[name]
    mean, interval = keras_meta.evaluation.mean_and_interval(gain)
    print(f"learned better than {name} by {mean:.2f} ± {interval:.2f}")

heading("A picture")
figure = figures.figure_for(None, 6, 4.2)
axis = figure.subplots()
for name, curve in curves.items():
    axis.plot(curve.rollouts, curve.means, marker="o", label=name)
    axis.fill_between(
        curve.rollouts,
        curve.means - curve.intervals,
        curve.means + curve.intervals,
        alpha=0.2,
    )
axis.set_title(f"New policies, {arguments.test_goals} unseen goals")
axis.set_xlabel("rollouts that the policy was trained on")
axis.set_ylabel("return")
axis.legend()
path = output / "learned_optimizer_rl.png"
figure.savefig(path, dpi=110)
print(f"picture: {path}")
