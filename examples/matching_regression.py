"""
Title: Matching networks for regression, on sinusoids
Description: Learn where to look, and compare with what needs no learning.
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
parser.add_argument("--steps", default=4000, type=int)
parser.add_argument("--test-episodes", default=600, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)
started = time.time()


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Training

A task is a wave of its own amplitude and phase. From ten points of it the
model shall say what the rest looks like: the mean of the ten values, weighed
by how near their points are to the one that is asked for, in a learned space.
"""

heading("1. A matching network on sinusoids")
model = keras_meta.MatchingNetwork(
    keras_meta.backbones.mlp((1,), (64, 64), outputs=32),
    regression=True,
)
model.compile(optimizer="adam", loss="mse", steps_per_execution=20)
model.fit(
    keras_meta.episodes.sinusoids(shots=10, queries=10, meta_batch_size=25),
    steps_per_epoch=max(20, arguments.steps // 4),
    epochs=4,
)

"""
## How good is that?

On the same unseen waves: the mean of the support set, its nearest point, and
attention by nearness on the axis of x, which fades like a bell; its width is
the best of seven on other waves.
"""


def mean_of_support(x):
    """Answers every query with the mean of the support targets."""
    mean = tf.reduce_mean(x["support_y"], axis=1, keepdims=True)
    return tf.broadcast_to(mean, x["query_x"].shape)


def nearest_point(x):
    """Answers a query with the target of the nearest support point."""
    apart = tf.abs(x["query_x"] - tf.transpose(x["support_x"], [0, 2, 1]))
    nearest = tf.argmin(apart, axis=-1)
    return tf.gather(x["support_y"], nearest, batch_dims=1)


def fading(width):
    """Returns attention that fades like a bell of such a width."""

    def answer(x):
        apart = x["query_x"] - tf.transpose(x["support_x"], [0, 2, 1])
        attention = tf.nn.softmax(-tf.square(apart / width) / 2)
        return tf.matmul(attention, x["support_y"])

    return answer


heading("2. Evaluation on unseen waves")
settings = dict(shots=10, queries=100, meta_batch_size=50)
choosing_waves = keras_meta.episodes.sinusoids(
    **settings, episodes=200, seed=500
)
widths = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
errors = {
    width: keras_meta.evaluate_episodes(fading(width), choosing_waves).mean
    for width in widths
}
best_width = min(errors, key=errors.get)
unseen_waves = keras_meta.episodes.sinusoids(
    **settings, episodes=arguments.test_episodes, seed=1000
)
print("\nMean squared error, 95 % interval:")
for name, answer in (
    ("mean of the support set", mean_of_support),
    ("nearest support point", nearest_point),
    (f"bell of width {best_width}", fading(best_width)),
    ("matching network", model),
):
    result = keras_meta.evaluate_episodes(answer, unseen_waves)
    print(f"  {name:24s} {result.mean:6.3f} ± {result.interval:.3f}")

"""
## One picture

All waves have the same period, and the space that is learned knows it: the
answer also follows support points that are one period away.
"""

heading("3. A picture")
figure = keras_meta.visualization.plot_regression(
    model, unseen_waves, tasks=4, steps=(0,)
)
picture_path = output / "matching_regression.png"
figure.savefig(picture_path, dpi=110)

heading("Done")
print(f"picture: {picture_path.resolve()}")
