"""
Title: Meta-SGD and MAML on sinusoids
Description: One inner step with one rate for all, or with a rate of its own
    for each weight.
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

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="meta_sgd_output", type=pathlib.Path)
parser.add_argument("--steps", default=60000, type=int)
parser.add_argument("--train-shots", default=5, type=int)
parser.add_argument("--test-shots", default=[5, 10, 20], type=int, nargs="+")
parser.add_argument("--test-episodes", default=600, type=int)
parser.add_argument("--seeds", default=[0, 1, 2], type=int, nargs="+")
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)

"""
## The task

Waves of their own amplitude, frequency and phase, as in the paper of Meta-SGD.
Models train with few points of a wave, and are tested with as many and more.
"""


def waves(shots, **settings):
    return keras_meta.episodes.sinusoids(
        shots=shots, frequency=(0.8, 1.2), **settings
    )


"""
## Two models, one step

MAML takes one rate for all weights, 0.01 as in its paper. Meta-SGD learns a
rate for each weight beside the weight, all of which start there.
"""

RULES = {
    "MAML": keras_meta.update_rules.GradientDescent,
    "Meta-SGD": keras_meta.update_rules.MetaSGD,
}


def train(rule, seed):
    keras.utils.set_random_seed(seed)
    model = keras_meta.MAML(
        keras_meta.backbones.mlp((1,), hidden_units=(40, 40)),
        inner_steps=1,
        update_rule=rule(0.01),
    )
    model.compile(
        keras.optimizers.Adam(0.001),
        loss="mse",
        steps_per_execution=min(20, arguments.steps),
    )
    episodes = waves(
        arguments.train_shots, queries=10, meta_batch_size=4, seed=seed
    )
    model.fit(episodes, steps_per_epoch=arguments.steps, verbose=0)
    return model


errors = {}
for seed in arguments.seeds:
    for name, rule in RULES.items():
        started = time.time()
        model = train(rule, seed)
        seconds = time.time() - started
        for shots in arguments.test_shots:
            test = waves(
                shots,
                queries=100,
                meta_batch_size=100,
                episodes=arguments.test_episodes,
                seed=1000,
            )
            result = keras_meta.evaluate_episodes(model, test)
            errors[name, shots, seed] = result.values
            print(
                f"seed {seed}, {name:8s} {shots:2d} shots: mean squared error "
                f"{result.mean:.3f} ± {result.interval:.3f} "
                f"(trained in {seconds:.0f} s)",
                flush=True,
            )
        model.save(output / f"{name}_seed{seed}.keras")

"""
## How certain is the difference?

Both models answered the same waves. The interval of the mean of the
differences (95 %, over waves) is narrower than that of the two errors.
"""

print("\n| seed | shots | MAML | Meta-SGD | difference |")
print("|---|---|---|---|---|")
for seed in arguments.seeds:
    for shots in arguments.test_shots:
        maml, meta_sgd = (errors[name, shots, seed] for name in RULES)
        cells = []
        for values in (maml, meta_sgd, meta_sgd - maml):
            half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
            cells.append(f"{np.mean(values):.3f} ± {half:.3f}")
        print(f"| {seed} | {shots} | {' | '.join(cells)} |")
print(f"\nmodels: {output.resolve()}")
