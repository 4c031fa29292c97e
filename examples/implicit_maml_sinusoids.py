"""
Title: Implicit MAML on sinusoids
Description: As many inner steps as it takes, in the memory of one.
Accelerator: None
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_meta

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="implicit_output", type=pathlib.Path)
parser.add_argument("--steps", default=4000, type=int)
parser.add_argument("--inner-steps", default=30, type=int)
parser.add_argument("--proximal-strength", default=0.1, type=float)
parser.add_argument("--test-episodes", default=600, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)
started = time.time()


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Training

Ten points of a wave are given, and the rest of it is asked for. The inner loop
goes on until a spring to the shared weights holds it; a weak spring, since the
waves are far apart.
"""

heading("1. Training")
model = keras_meta.ImplicitMAML(
    keras_meta.backbones.mlp(hidden_units=(40, 40)),
    inner_steps=arguments.inner_steps,
    inner_learning_rate=0.02,
    proximal_strength=arguments.proximal_strength,
    conjugate_gradient_steps=5,
    damping=1.0,
)
model.compile(
    keras.optimizers.Adam(0.001),
    loss="mse",
    steps_per_execution=min(20, arguments.steps),
)
epochs = min(4, arguments.steps)
model.fit(
    keras_meta.episodes.sinusoids(
        shots=10, queries=10, meta_batch_size=25, seed=arguments.seed
    ),
    steps_per_epoch=arguments.steps // epochs,
    epochs=epochs,
    verbose=2,
)

"""
## Has the inner loop come to rest?

Where the last steps change nothing any more, the outer gradient was right.
"""

heading("2. Unseen waves")
test = keras_meta.episodes.sinusoids(
    shots=10,
    queries=100,
    meta_batch_size=100,
    episodes=arguments.test_episodes,
    seed=1000,
)
result = keras_meta.evaluate_episodes(model, test)
last = len(result.steps) - 1
for step in sorted({0, 1, last // 4, last // 2, last}):
    mean, interval = result.steps[step]
    print(
        f"after {step:3d} steps: mean squared error {mean:.3f} ± {interval:.3f}"
    )

heading("Done")
model.save(output / "implicit_maml.keras")
print(f"model: {(output / 'implicit_maml.keras').resolve()}")
