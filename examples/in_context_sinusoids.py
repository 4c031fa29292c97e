"""
Title: Learning in context, on sinusoids
Description: A transformer, SNAIL and a memory network; no gradient per task.
Accelerator: None
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

import keras_meta

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="demo_output", type=pathlib.Path)
parser.add_argument("--steps", default=3000, type=int)
parser.add_argument("--test-episodes", default=600, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
started = time.time()


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Three ways to read a support set

The transformer reads it as a set. SNAIL and the memory network read it as a
sequence, point by point, the query last.
"""


def embedding():
    return keras_meta.backbones.mlp((1,), (64,), outputs=None)


models = {
    "InContextLearner": keras_meta.InContextLearner(
        embedding(), 1, regression=True
    ),
    "SNAIL": keras_meta.SNAIL(embedding(), 1, 10, regression=True),
    "MemoryAugmentedNetwork": keras_meta.MemoryAugmentedNetwork(
        embedding(), 1, regression=True, units=100, slots=20
    ),
}
training = keras_meta.episodes.sinusoids(shots=10, seed=arguments.seed)
for number, (name, model) in enumerate(models.items()):
    heading(f"{number + 1}. {name}")
    keras.utils.set_random_seed(arguments.seed)
    rate = keras.optimizers.schedules.CosineDecay(0.001, arguments.steps)
    model.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0),
        loss="mse",
    )
    model.fit(training, steps_per_epoch=arguments.steps, verbose=2)

"""
## The same points in another order

For a set the answer is the same. For a sequence it is not quite.
"""

heading("4. Waves never seen")
waves = keras_meta.episodes.sinusoids(
    shots=10,
    queries=100,
    meta_batch_size=50,
    episodes=arguments.test_episodes,
    seed=1000,
)
x, _ = next(iter(waves))
backwards = {
    key: tf.reverse(value, [1]) if key.startswith("support") else value
    for key, value in x.items()
}
for name, model in models.items():
    result = keras_meta.evaluate_episodes(model, waves)
    moved = tf.reduce_mean(tf.abs(model(x) - model(backwards)))
    print(
        f"{name}: squared error {result.mean:.4f} ± {result.interval:.4f}; "
        f"with the points backwards, answers move by {moved:.4f}"
    )

heading("5. A picture")
figure = keras_meta.visualization.plot_regression(
    models["InContextLearner"], waves, steps=(0,)
)
path = output / "in_context.png"
figure.savefig(path, dpi=110)
heading("Done")
print(f"picture: {path.resolve()}")
