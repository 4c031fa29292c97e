"""
Title: A hypernetwork on sinusoids
Description: A network that writes another one for each wave.
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
parser.add_argument("--output", default="demo_output", type=pathlib.Path)
parser.add_argument("--steps", default=6000, type=int)
parser.add_argument("--test-episodes", default=600, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
started = time.time()


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Training

The points of a wave are read, and the weights of a small network are written.
How many numbers that takes is a choice: all weights, matrices of low rank, or
a factor for each unit.
"""

training = keras_meta.episodes.sinusoids(shots=10, seed=arguments.seed)
waves = keras_meta.episodes.sinusoids(
    shots=10,
    queries=100,
    meta_batch_size=50,
    episodes=arguments.test_episodes,
    seed=1000,
)
results = {}
for number, generates in enumerate(("all", "low_rank", "film", "head")):
    heading(f"{number + 1}. generates={generates!r}")
    keras.utils.set_random_seed(arguments.seed)
    model = keras_meta.HyperNetwork(
        keras_meta.backbones.mlp((1,), (40, 40), outputs=1),
        regression=True,
        generates=generates,
    )
    rate = keras.optimizers.schedules.CosineDecay(0.001, arguments.steps)
    model.compile(
        keras.optimizers.Adam(rate), loss="mse", steps_per_execution=20
    )
    model.fit(training, steps_per_epoch=max(20, arguments.steps), verbose=2)
    result = keras_meta.evaluate_episodes(model, waves)
    results[generates] = (model, result)

"""
## What it costs, and what it gives
"""

heading("5. Waves never seen")
print(f"{'generates':12s} {'numbers':>8s}  squared error")
for generates, (model, result) in results.items():
    print(
        f"{generates:12s} {model.generated_weights:8,d}  {result.mean:.4f} ± "
        f"{result.interval:.4f}"
    )

"""
## The network of one wave

`adapt()` gives the network with the weights written for it: 1,761 numbers in an
ordinary Keras model, which needs nothing of this package.
"""

x, _ = next(iter(waves))
model = results["all"][0]
adapted = model.adapt(x["support_x"][0], x["support_y"][0])
adapted.save(output / "one_wave.keras")
figure = keras_meta.visualization.plot_regression(model, waves, steps=(0,))
path = output / "hyper_network.png"
figure.savefig(path, dpi=110)
heading("Done")
print(f"picture: {path.resolve()}")
print(f"model of one wave: {(output / 'one_wave.keras').resolve()}")
