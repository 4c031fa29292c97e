"""
Title: MetaGenRL, an objective that trains new agents
Description: Learned on navigation, it trains agents for tasks and for kinds of
    environments that it has never seen.
Accelerator: None
"""

import argparse
import json
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
parser.add_argument("--output", default="metagenrl_output", type=pathlib.Path)
parser.add_argument("--steps", default=400, type=int)
parser.add_argument("--learning-rate", default=1e-3, type=float)
parser.add_argument("--population", default=8, type=int)
parser.add_argument("--horizon", default=50, type=int)
parser.add_argument("--test-horizon", default=100, type=int)
parser.add_argument("--iterations", default=40, type=int)
parser.add_argument("--gradient-steps", default=20, type=int)
parser.add_argument("--test-tasks", default=8, type=int)
parser.add_argument("--seeds", default=[0, 1, 2, 3, 4], type=int, nargs="+")
parser.add_argument("--families", default=[], nargs="*")
parser.add_argument("--methods", default=[], nargs="*")
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)

"""
## Learning the objective

A population of agents learns to find goals, each its own. What moves their
policies is the objective, an LSTM over what has happened; what moves the
objective is what the agents' critics think of these moves. Agents that have
lived for 20 iterations make way for new ones.
"""

environments = keras_meta.rl.environments
navigation = environments.PointNavigation(
    reward="distance", horizon=arguments.horizon
)


def make_agent(environment, objective=None, **settings):
    return keras_meta.rl.MetaGenRLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        objective,
        population=arguments.population,
        gradient_steps=arguments.gradient_steps,
        **settings,
    )


def learn_objective(seed):
    keras.utils.set_random_seed(seed)
    agent = make_agent(navigation)
    model = keras_meta.rl.AgentModel(agent, navigation)
    model.compile(
        keras.optimizers.Adam(arguments.learning_rate, global_clipnorm=1.0)
    )
    start = time.perf_counter()
    model.fit(
        navigation.tasks(arguments.population, seed=seed),
        steps_per_epoch=arguments.steps,
        verbose=2,
    )
    print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    agent.objective.save(output / f"objective_{seed}.keras")
    return agent.objective


"""
## New agents

The objective, which no longer changes, trains agents with new weights: for
goals it has not seen, and in two kinds of environments in which it never was.
Beside it, DDPG, PPO and REINFORCE with the same number of environment steps,
each at its defaults; DDPG takes as many gradient steps.
"""

FAMILIES = {
    "navigation": navigation,
    "cart-poles": environments.CartPoles(horizon=arguments.test_horizon),
    "pendulums": environments.Pendulums(horizon=arguments.test_horizon),
}
FAMILIES = {
    family: environment
    for family, environment in FAMILIES.items()
    if family in (arguments.families or FAMILIES)
}


def scratch(make):
    return lambda environment, objective: keras_meta.rl.FineTuningAgent(
        lambda: make(environment),
        rollouts=2,
        inner_iterations=arguments.iterations,
        gradient_steps=arguments.gradient_steps,
        minibatch_size=80,
    )


agents = keras_meta.rl.agents
METHODS = {
    "MetaGenRL": lambda environment, objective: make_agent(
        environment, objective, inner_iterations=arguments.iterations
    ),
    "DDPG": scratch(
        lambda environment: agents.ddpg(environment, noise=0.3, discount=0.97)
    ),
    "PPO": scratch(lambda environment: agents.ppo(environment)),
    "REINFORCE": scratch(lambda environment: agents.reinforce(environment)),
}
METHODS = {
    method: make
    for method, make in METHODS.items()
    if method in (arguments.methods or METHODS)
}

curves = {}
rollouts = {}
for seed in arguments.seeds:
    objective = learn_objective(seed)
    for family, environment in FAMILIES.items():
        for method, make in METHODS.items():
            keras.utils.set_random_seed(seed)
            tasks = environment.sample_tasks(arguments.test_tasks, "test", seed)
            curve = make(environment, objective).evaluate(environment, tasks)
            curves.setdefault((family, method), []).append(curve.values)
            rollouts[family, method] = curve.rollouts
            print(
                f"seed {seed}, {family}, {method}: "
                f"{curve.means[-1]:.1f} ± {curve.intervals[-1]:.1f}",
                flush=True,
            )


def random_return(environment):
    """Returns what random actions get."""
    # After `keras_meta.rl`, which makes TF-Agents usable.
    from tf_agents.policies import random_tf_policy

    policy = random_tf_policy.RandomTFPolicy(
        environment.time_step_spec(), environment.action_spec()
    )
    tasks = environment.sample_tasks(1000, "test")
    driver = keras_meta.rl.RolloutDriver(environment, policy)
    experience, _ = tf.function(driver.run, autograph=False)(tasks)
    return float(
        tf.reduce_mean(keras_meta.rl.rollouts.first_returns(experience))
    )


"""
## What came of it

The mean over seeds, with 95 % intervals over these: each seed is an objective
of its own.
"""

results = {}
figure = figures.figure_for(None, 12, 3.5)
axes = figure.subplots(1, len(FAMILIES), squeeze=False)[0]
for axis, (family, environment) in zip(axes, FAMILIES.items()):
    chance = random_return(environment)
    results[family] = {"random": chance}
    print(f"{family}: random {chance:.1f}")
    for method in METHODS:
        # The last quarter of training, since returns go up and down.
        values = np.array(curves[family, method]).mean(axis=1)
        late = values[:, -max(1, arguments.iterations // 4) :].mean(axis=1)
        error = 0.0
        if len(late) > 1:
            error = 1.96 * late.std(ddof=1) / np.sqrt(len(late))
        results[family][method] = [float(late.mean()), float(error)]
        print(f"{family}: {method} {late.mean():.1f} ± {error:.1f}")
        axis.plot(rollouts[family, method], values.mean(axis=0), label=method)
    axis.axhline(chance, color="gray", linestyle=":", label="random")
    axis.set(title=family, xlabel="rollouts", ylabel="return")
axes[0].legend()
figure.savefig(output / "metagenrl.png", dpi=120)
(output / "metagenrl.json").write_text(json.dumps(results, indent=1))
print(f"picture: {output / 'metagenrl.png'}")
