"""
Title: ProtoMAML on glyphs, with any ways
Description: Train on tasks of 3 to 10 characters, and test with 5, 10 and 20.
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
parser.add_argument("--output", default="proto_maml_output", type=pathlib.Path)
parser.add_argument("--steps", default=400, type=int)
parser.add_argument("--ways", default=[3, 5, 10], type=int, nargs="+")
parser.add_argument("--test-ways", default=[5, 10, 20], type=int, nargs="+")
parser.add_argument("--test-episodes", default=400, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

# Tasks are faster with one thread for each operation, and several at once.
tf.config.threading.set_intra_op_parallelism_threads(1)

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)
started = time.time()


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Tasks of different size

Glyphs are characters drawn from the fonts that come with matplotlib; whole
scripts are kept back for the test.
"""

heading("1. Glyphs")
glyphs = keras_meta.episodes.glyphs()
train, _, test = keras_meta.episodes.class_split(
    glyphs.labels, fractions=(0.65, 0.1, 0.25), groups=glyphs.scripts
)


def episodes(ways, classes, **settings):
    return keras_meta.episodes.from_arrays(
        glyphs.images,
        glyphs.labels,
        ways=ways,
        shots=1,
        classes=classes,
        **settings,
    )


"""
## Training

The network gives embeddings; the head is made from the support set. It has as
many outputs as the largest task will have. One `fit()` for each number of
ways, several times around: the model goes on where it was.
"""

heading("2. Training")
most = max(arguments.ways + arguments.test_ways)
model = keras_meta.ProtoMAML(
    keras_meta.backbones.conv4(filters=32, downsampling="strides"),
    ways=most,
    inner_steps=1,
    inner_learning_rate=0.01,
    evaluation_steps=3,
    sharpness=0.1,
    normalization_statistics="support",
)
rounds = min(4, arguments.steps)
steps = max(1, arguments.steps // (rounds * len(arguments.ways)))
total = rounds * steps * len(arguments.ways)
model.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.003, total)),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
for number in range(rounds):
    for ways in arguments.ways:
        data = episodes(
            ways,
            train,
            queries=5,
            meta_batch_size=4,
            seed=arguments.seed + number,
        )
        model.fit(data, steps_per_epoch=steps, verbose=2)

"""
## Test

The first column is the prototypical network that each task starts from.
"""

heading("3. Scripts never seen")
for ways in arguments.test_ways:
    data = episodes(
        ways,
        test,
        queries=5,
        meta_batch_size=10,
        episodes=arguments.test_episodes,
        seed=1000,
    )
    result = keras_meta.evaluate_episodes(model, data)
    (before, before_interval), *_, (after, interval) = result.steps
    print(
        f"{ways:2d} ways: {before:.1%} ± {before_interval:.1%} by prototypes, "
        f"{after:.1%} ± {interval:.1%} adapted ({result.count} episodes)",
        flush=True,
    )

heading("Done")
model.save(output / "proto_maml_glyphs.keras")
print(f"model: {(output / 'proto_maml_glyphs.keras').resolve()}")
