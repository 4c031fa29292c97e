"""
Title: RL^2 on bandits
Description: A recurrent policy learns to explore, beside Thompson sampling,
    UCB1 and the Gittins index.
Accelerator: None
"""

import argparse
import functools
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
parser.add_argument("--output", default="rl2_bandits_output", type=pathlib.Path)
parser.add_argument("--arms", default=5, type=int)
parser.add_argument("--pulls", default=10, type=int)
parser.add_argument("--units", default=64, type=int)
parser.add_argument("--prediction-weight", default=0.5, type=float)
parser.add_argument("--meta-batch-size", default=1000, type=int)
parser.add_argument("--steps", default=900, type=int)
parser.add_argument("--learning-rate", default=1e-2, type=float)
parser.add_argument("--short-pulls", default=20, type=int)
parser.add_argument("--short-steps", default=0, type=int)
parser.add_argument("--short-learning-rate", default=1e-2, type=float)
parser.add_argument("--epochs", default=2, type=int)
parser.add_argument("--minibatches", default=5, type=int)
parser.add_argument("--test-bandits", default=1000, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)

"""
## The trials

A bandit has arms that pay 1 with a chance of their own, or nothing. A trial is
a number of pulls on one bandit; the agent sees which arm it has pulled last,
and what it got.
"""

bandits = keras_meta.rl.environments.Bandits(
    arms=arguments.arms, horizon=1, seed=arguments.seed
)
trials = keras_meta.rl.environments.Trials(bandits, rollouts=arguments.pulls)

"""
## RL^2

PPO trains the policy for what it gets in all pulls of a trial. It needs no
bonus for exploration: what is found out pays later in the trial. To foretell
what each pull pays teaches it what to remember, and to play short trials first
(`--short-steps`) is a quick start where trials are long.
"""

agent = keras_meta.rl.RL2Agent(
    trials.time_step_spec(),
    trials.action_spec(),
    keras.layers.GRUCell(arguments.units),
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
            bandits, rollouts=arguments.short_pulls
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
pulls = steps * arguments.meta_batch_size * arguments.pulls
print(f"{pulls:,} pulls in {seconds:.0f} s, {pulls / seconds:,.0f} a second")

"""
## The classical methods

They play the same test bandits; Thompson sampling and Gittins know that the
chances are uniform. The Gittins index of an arm is the sure payment for each
pull that would be as good as the arm, with what is known of it; here for a
discount of 0.99. Of few pulls the best play can be computed, too, backwards
from what can come of each.
"""


def gittins_indices(pulls, discount=0.99, horizon=600):
    """Returns the index of each number of gains and losses.

    An arm and a sure payment: what is the payment at which a player who may
    take it for good does not care? The value of the game is computed
    backwards from `horizon` pulls on, for a grid of payments.

    Returns:
        Array `[pulls + 1, pulls + 1]`, by gains and losses.
    """
    payments = np.linspace(0.0, 1.0, 501)
    retired = payments / (1 - discount)
    indices = np.full((pulls + 1, pulls + 1), np.nan)
    # After so many pulls, the mean is taken for the chance.
    gains = np.arange(horizon + 1)
    mean = (gains + 1) / (horizon + 2)
    values = np.maximum(retired, mean[:, None] / (1 - discount))
    for pulled in reversed(range(horizon)):
        gains = np.arange(pulled + 1)
        mean = ((gains + 1) / (pulled + 2))[:, None]
        going_on = mean * (1 + discount * values[1:]) + (
            (1 - mean) * discount * values[:-1]
        )
        if pulled <= pulls:
            # The payment at which going on no longer is better.
            better = going_on - retired
            last = np.argmax(better < 1e-9, axis=1)
            indices[gains, pulled - gains] = payments[last]
        values = np.maximum(retired, going_on)
    return indices


def play(choose, chances, pulls, numbers):
    """Plays bandits with a method; returns the chances of its pulls.

    Args:
        choose: Function of gains and losses `[bandits, arms]` and the number
            of the pull that returns scores `[bandits, arms]`.
        chances: Array `[bandits, arms]`.
        pulls: Integer.
        numbers: `np.random.Generator`.

    Returns:
        Two arrays `[bandits, pulls]`: what was paid, and with what chance.
    """
    gains, losses = np.zeros_like(chances), np.zeros_like(chances)
    rows = np.arange(len(chances))
    paid, chance = [], []
    for pull in range(pulls):
        scores = choose(gains, losses, pull)
        # Ties are broken by chance.
        arms = np.argmax(scores + 1e-9 * numbers.random(scores.shape), axis=1)
        chance.append(chances[rows, arms])
        paid.append(numbers.random(len(rows)) < chance[-1])
        gains[rows, arms] += paid[-1]
        losses[rows, arms] += ~paid[-1]
    return np.stack(paid, axis=1), np.stack(chance, axis=1)


def upper_bounds(width):
    """UCB1 on the expected chances, with a width to be chosen."""

    def choose(gains, losses, pull):
        count = gains + losses
        bound = np.sqrt(np.log(pull + 1) / (count + 1))
        return (gains + 1) / (count + 2) + width * bound

    return choose


@functools.cache
def best_value(known, left):
    """Returns what the best play gets in the pulls that are left.

    Args:
        known: Tuple of the gains and losses of each arm, sorted.
        left: Integer, how many pulls.
    """
    if left == 0:
        return 0.0
    return max(pull_value(known, arm, left) for arm in range(len(known)))


def pull_value(known, arm, left):
    """Returns what a pull of an arm gets, and the best play after it."""
    gains, losses = known[arm]
    others = known[:arm] + known[arm + 1 :]
    chance = (gains + 1) / (gains + losses + 2)
    won = tuple(sorted((*others, (gains + 1, losses))))
    lost = tuple(sorted((*others, (gains, losses + 1))))
    return chance * (1 + best_value(won, left - 1)) + (
        (1 - chance) * best_value(lost, left - 1)
    )


def best_play(gains, losses, pull):
    left = arguments.pulls - pull
    known = np.stack([gains, losses], axis=-1).astype(int).tolist()
    known = [tuple(map(tuple, arms)) for arms in known]
    return np.array(
        [
            [pull_value(arms, arm, left) for arm in range(len(arms))]
            for arms in known
        ]
    )


numbers = np.random.default_rng(arguments.seed)
others = trials.sample_tasks(4000, "validation").numpy().astype("float64")
# As in the paper, UCB1 has the width that is best, here on other bandits.
width = max(
    (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    key=lambda width: play(
        upper_bounds(width), others, arguments.pulls, numbers
    )[0].mean(),
)
indices = gittins_indices(arguments.pulls)
METHODS = {
    "random": lambda gains, losses, pull: numbers.random(gains.shape),
    "Thompson sampling": lambda gains, losses, pull: numbers.beta(
        gains + 1, losses + 1
    ),
    "UCB1": upper_bounds(width),
    "Gittins": lambda gains, losses, pull: indices[
        gains.astype(int), losses.astype(int)
    ],
}
if arguments.pulls <= 10:
    METHODS["the best"] = best_play

"""
## On unseen bandits
"""

tasks = trials.sample_tasks(arguments.test_bandits, "test")
chances = tasks.numpy().astype("float64")
best = chances.max(axis=1, keepdims=True)
results = {
    name: play(choose, chances, arguments.pulls, numbers)
    for name, choose in METHODS.items()
}
for name, greedy in (("RL^2, sampled", False), ("RL^2, greedy", True)):
    experience = tf.function(
        lambda: agent.collect(trials, tasks, greedy=greedy), autograph=False
    )()
    chosen = np.take_along_axis(chances, experience.action.numpy(), axis=1)
    results[name] = experience.reward.numpy(), chosen

print(
    f"total reward of {arguments.pulls} pulls, {arguments.arms} arms, "
    f"{arguments.test_bandits} bandits (UCB1 of width {width}):"
)
for name, (paid, _) in results.items():
    total, interval = mean_and_interval(paid.sum(axis=1))
    print(f"{name:18} {total:6.2f} ± {interval:.2f}")

figure = figures.figure_for(None, 6, 4)
axes = figure.subplots()
for name, (_, chance) in results.items():
    regret = np.cumsum(best - chance, axis=1).mean(axis=0)
    axes.plot(np.arange(1, arguments.pulls + 1), regret, label=name)
axes.set_xlabel("pulls")
axes.set_ylabel("regret")
axes.set_title(f"{arguments.arms} arms")
axes.legend()
path = output / f"rl2_bandits_{arguments.pulls}_{arguments.arms}.png"
figure.savefig(path, dpi=120)
print(f"picture: {path}")
