"""
Title: RL^2 on tabular MDPs
Description: A recurrent policy learns to explore small worlds, beside
    posterior sampling and a player who knows the world.
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
from keras_meta.evaluation import mean_and_interval

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="rl2_mdps_output", type=pathlib.Path)
parser.add_argument("--rollouts", default=10, type=int)
parser.add_argument(
    "--cell", default="associative", choices=["associative", "gru"]
)
parser.add_argument("--units", default=128, type=int)
parser.add_argument("--prediction-weight", default=1.0, type=float)
parser.add_argument("--meta-batch-size", default=1000, type=int)
parser.add_argument("--steps", default=120, type=int)
parser.add_argument("--learning-rate", default=8e-3, type=float)
parser.add_argument("--short-rollouts", default=10, type=int)
parser.add_argument("--short-steps", default=0, type=int)
parser.add_argument("--short-learning-rate", default=8e-3, type=float)
parser.add_argument("--epochs", default=2, type=int)
parser.add_argument("--minibatches", default=5, type=int)
parser.add_argument("--test-mdps", default=1000, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)

"""
## The trials

A world of 10 states and 5 actions: where an action leads, and what it pays in
the mean, are tables that the agent does not see. A rollout has 10 steps, and
starts in the same state; a trial is a number of rollouts in one world.
"""

mdps = keras_meta.rl.environments.TabularMDPs(seed=arguments.seed)
trials = keras_meta.rl.environments.Trials(mdps, rollouts=arguments.rollouts)

"""
## RL^2

What is to be remembered is a table: what each action has paid in each state. A
memory that writes values under keys learns it in far fewer steps than a GRU,
and sooner if it has to foretell rewards as well. To play short trials first
(`--short-steps`) is a quick start where trials are long.
"""

cells = {
    "associative": keras_meta.rl.AssociativeCell,
    "gru": keras.layers.GRUCell,
}
agent = keras_meta.rl.RL2Agent(
    trials.time_step_spec(),
    trials.action_spec(),
    cells[arguments.cell](arguments.units),
    epochs=arguments.epochs,
    minibatches=arguments.minibatches,
    entropy=0.0,
    prediction_weight=arguments.prediction_weight,
)


def decaying(learning_rate, steps, alpha=0.0):
    updates = steps * arguments.epochs * arguments.minibatches
    return keras.optimizers.schedules.CosineDecay(
        learning_rate, updates, alpha=alpha
    )


def train(trials, steps, learning_rate, seed, epochs):
    """Trains on trials; returns the outer steps and the seconds they took."""
    model = keras_meta.rl.AgentModel(agent, trials)
    model.compile(keras.optimizers.Adam(learning_rate, global_clipnorm=1.0))
    epochs = min(epochs, steps)
    start = time.perf_counter()
    model.fit(
        trials.tasks(arguments.meta_batch_size, seed=seed),
        steps_per_epoch=steps // epochs,
        epochs=epochs,
        verbose=2,
    )
    return steps // epochs * epochs, time.perf_counter() - start


if arguments.short_steps:
    train(
        keras_meta.rl.environments.Trials(
            mdps, rollouts=arguments.short_rollouts
        ),
        arguments.short_steps,
        # Half of the way down: this is only a start.
        decaying(arguments.short_learning_rate, 2 * arguments.short_steps),
        arguments.seed + 1,
        epochs=5,
    )
steps, seconds = train(
    trials,
    arguments.steps,
    decaying(arguments.learning_rate, arguments.steps, alpha=0.05),
    arguments.seed,
    epochs=10,
)
print(f"trained for {seconds:.0f} s")

"""
## Others

Posterior sampling draws, before each rollout, a world that could be this one
by what was seen of it, and does what would be best there. It knows from what
the worlds are drawn. A player who knows the world itself is the limit.
"""


def best_actions(rewards, transitions, horizon):
    """Returns what is best to do, by the steps that are left.

    Args:
        rewards: Array `[mdps, states, actions]`.
        transitions: Array `[mdps, states, actions, states]`.
        horizon: Integer, the steps of a rollout.

    Returns:
        List of integer arrays `[mdps, states]`, one for each step.
    """
    values = np.zeros(rewards.shape[:2])
    best = []
    for _ in range(horizon):
        totals = rewards + np.einsum("nsat,nt->nsa", transitions, values)
        best.append(totals.argmax(axis=-1))
        values = totals.max(axis=-1)
    return best[::-1]


def play(plan, rewards, transitions, rollouts, horizon, numbers):
    """Plays worlds by a plan for each rollout; returns what each rollout paid.

    Args:
        plan: Function of what was seen: how often each step was taken,
            `[mdps, states, actions, states]`, and what each action paid in
            all, `[mdps, states, actions]`. It returns a list of integer arrays
            `[mdps, states]`, what to do in each step.
        rewards: Array `[mdps, states, actions]`.
        transitions: Array `[mdps, states, actions, states]`.
        rollouts: Integer.
        horizon: Integer, the steps of a rollout.
        numbers: `np.random.Generator`.

    Returns:
        Array `[mdps, rollouts]`.
    """
    rows = np.arange(len(rewards))
    steps, paid = np.zeros_like(transitions), np.zeros_like(rewards)
    totals = np.zeros((len(rewards), rollouts))
    for rollout in range(rollouts):
        state = np.zeros(len(rewards), int)
        for chosen in plan(steps, paid):
            action = chosen[rows, state]
            reward = numbers.normal(rewards[rows, state, action])
            passed = transitions[rows, state, action].cumsum(axis=-1)
            after = (passed < numbers.random((len(rows), 1))).sum(axis=-1)
            after = np.minimum(after, passed.shape[1] - 1)
            steps[rows, state, action, after] += 1
            paid[rows, state, action] += reward
            totals[:, rollout] += reward
            state = after
    return totals


def posterior_sampling(steps, paid):
    count = steps.sum(axis=-1)
    rewards = numbers.normal((1 + paid) / (1 + count), (1 + count) ** -0.5)
    transitions = numbers.gamma(1 + steps)
    transitions /= transitions.sum(axis=-1, keepdims=True)
    return best_actions(rewards, transitions, mdps.horizon)


def at_random(steps, paid):
    return numbers.integers(mdps.actions, size=(mdps.horizon, *paid.shape[:2]))


"""
## In unseen worlds
"""

numbers = np.random.default_rng(arguments.seed)
tasks = trials.sample_tasks(arguments.test_mdps, "test")
rewards = tasks["rewards"].numpy().astype("float64")
transitions = tasks["transitions"].numpy().astype("float64")
known = best_actions(rewards, transitions, mdps.horizon)
results = {
    name: play(
        plan, rewards, transitions, arguments.rollouts, mdps.horizon, numbers
    )
    for name, plan in (
        ("random", at_random),
        ("posterior sampling", posterior_sampling),
        ("knowing the world", lambda steps, paid: known),
    )
}
for name, greedy in (("RL^2, sampled", False), ("RL^2, greedy", True)):
    returns = tf.function(
        lambda: agent.returns(trials, tasks, greedy=greedy), autograph=False
    )
    results[name] = returns().numpy()

print(
    f"total reward of {arguments.rollouts} rollouts of {mdps.horizon} steps, "
    f"{arguments.test_mdps} worlds:"
)
for name, returns in results.items():
    total, interval = mean_and_interval(returns.sum(axis=1))
    print(f"{name:18} {total:7.2f} ± {interval:.2f}")

figure = figures.figure_for(None, 8, 4)
axes = figure.subplots()
for name, returns in results.items():
    axes.plot(
        np.arange(1, arguments.rollouts + 1), returns.mean(axis=0), label=name
    )
axes.set_xlabel("rollout in the world")
axes.set_ylabel("return")
axes.set_title("tabular MDPs")
figure.legend(loc="outside right upper")
path = output / f"rl2_mdps_{arguments.rollouts}.png"
figure.savefig(path, dpi=120)
print(f"picture: {path}")
