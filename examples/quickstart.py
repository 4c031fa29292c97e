"""
Title: MAML in three minutes, on sinusoids and on glyphs
Description: Train with `fit()`, adapt to tasks never seen, look, and save.
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
from matplotlib.figure import Figure

import keras_meta

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="demo_output", type=pathlib.Path)
parser.add_argument("--sinusoid-steps", default=4000, type=int)
parser.add_argument("--glyph-steps", default=400, type=int)
parser.add_argument("--test-episodes", default=400, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)
started = time.time()


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Sinusoids

A task is a wave of its own amplitude and phase. From ten points of it the
model shall say what the rest looks like. An episode is an example, a
meta-batch of 25 of them a batch, and `fit()` does the rest.
"""

heading("1. MAML on sinusoids")
sinusoid_model = keras_meta.MAML(
    keras_meta.backbones.mlp(hidden_units=(40, 40)),
    inner_steps=1,
    inner_learning_rate=0.01,
    evaluation_steps=10,
)
# Many small steps: let TensorFlow run 20 of them before Keras looks again.
sinusoid_model.compile(optimizer="adam", loss="mse", steps_per_execution=20)
sinusoid_model.fit(
    keras_meta.episodes.sinusoids(shots=10, queries=10, meta_batch_size=25),
    steps_per_epoch=max(20, arguments.sinusoid_steps // 4),
    epochs=4,
)

unseen_waves = keras_meta.episodes.sinusoids(
    shots=10, queries=100, meta_batch_size=50, episodes=600, seed=1000
)
waves = keras_meta.evaluate_episodes(sinusoid_model, unseen_waves)
print(f"\nMean squared error on {waves.count} unseen waves, 95 % interval:")
for step in (0, 1, 10):
    mean, interval = waves.steps[step]
    print(f"  after {step:2d} step(s)  {mean:6.3f} ± {interval:.3f}")

"""
## Glyphs

Characters drawn from the fonts that come with matplotlib: each class is a
character, each group a script. Classes of whole scripts are kept back, so
that the test shows letters of alphabets that were never trained on. (The
settings below were chosen on a third part, which is left alone here.)
"""

heading("2. MAML on glyphs, 5-way 1-shot")
glyphs = keras_meta.episodes.glyphs()
train_classes, _, test_classes = keras_meta.episodes.class_split(
    glyphs.labels, fractions=(0.65, 0.1, 0.25), groups=glyphs.scripts
)
test_scripts = sorted({glyphs.scripts[number] for number in test_classes})
print(
    f"{len(train_classes)} classes to train on; {len(test_classes)} to test "
    f"on, of scripts that are not trained on: {', '.join(test_scripts)}."
)
train_episodes = keras_meta.episodes.from_arrays(
    glyphs.images,
    glyphs.labels,
    ways=5,
    shots=1,
    queries=10,
    meta_batch_size=8,
    classes=train_classes,
)
test_episodes = keras_meta.episodes.from_arrays(
    glyphs.images,
    glyphs.labels,
    ways=5,
    shots=1,
    queries=15,
    meta_batch_size=8,
    episodes=arguments.test_episodes,
    classes=test_classes,
    seed=1000,
)
glyph_model = keras_meta.MAML(
    keras_meta.backbones.conv4(outputs=5, filters=32, downsampling="strides"),
    inner_steps=1,
    inner_learning_rate=0.4,
    evaluation_steps=3,
)
glyph_model.compile(
    optimizer=keras.optimizers.Adam(0.005),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
glyph_model.fit(
    train_episodes,
    steps_per_epoch=max(1, arguments.glyph_steps // 5),
    epochs=5,
)

"""
## How good is that?

On the same episodes: chance, and a nearest neighbor on the raw pixels.
"""


def nearest_pixels(x):
    """Scores each way by its nearest support image."""
    support = tf.reshape(x["support_x"], [*x["support_y"].shape, -1])
    query = tf.reshape(x["query_x"], [*x["query_x"].shape[:2], -1])
    distances = tf.norm(query[:, :, None] - support[:, None], axis=-1)
    of_way = x["support_y"][:, None, :, None] == tf.range(5)
    return -tf.reduce_min(
        tf.where(of_way, distances[..., None], float("inf")), axis=2
    )


heading("3. Evaluation on scripts never seen")
adapted = keras_meta.evaluate_episodes(glyph_model, test_episodes)
# One way in five is always right, so that chance needs no run.
rows = [("chance", 0.2, 0.0)]
neighbor = keras_meta.evaluate_episodes(nearest_pixels, test_episodes)
rows.append(("nearest neighbor on pixels", neighbor.mean, neighbor.interval))
rows.append(("MAML before adapting", *adapted.steps[0]))
for step in range(1, len(adapted.steps)):
    plural = "s" * (step != 1)
    rows.append((f"MAML after {step} step{plural}", *adapted.steps[step]))
print(f"\nAccuracy over {adapted.count} episodes, 95 % interval:")
for name, mean, interval in rows:
    print(f"  {name:28s} {mean:7.1%} ± {interval:.1%}")

"""
## One picture

Fits of unseen waves before and after adapting, and one episode of glyphs.
"""

heading("4. A picture")
figure = Figure(figsize=(13, 9.5), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(3.4, 5.6), hspace=0.05)
keras_meta.visualization.plot_regression(
    sinusoid_model, unseen_waves, tasks=3, steps=(0, 1, 10), figure=top
)
keras_meta.visualization.plot_episode(glyph_model, test_episodes, figure=bottom)
picture_path = output / "quickstart.png"
figure.savefig(picture_path, dpi=110)
print("done")

"""
## Saved, loaded, the same

The model is a Keras model: one file, and it predicts the same.
"""

heading("5. Save and load")
model_path = output / "maml_glyphs.keras"
glyph_model.save(model_path)
loaded = keras.saving.load_model(model_path)
episode, _ = next(iter(test_episodes))
difference = np.max(
    np.abs(
        loaded.predict(episode, verbose=0)
        - glyph_model.predict(episode, verbose=0)
    )
)
print(f"largest difference of a prediction after loading: {difference}")
if difference:
    raise SystemExit("The loaded model must predict the same.")

heading("Done")
print(f"picture: {picture_path.resolve()}")
print(f"model:   {model_path.resolve()}")
