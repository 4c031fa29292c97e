"""
Title: Reptile on glyphs, with the settings of its paper
Description: 5-way 1-shot on scripts never seen, trained on 10 shots.
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
parser.add_argument("--output", default="reptile_output", type=pathlib.Path)
parser.add_argument("--steps", default=2000, type=int)
parser.add_argument("--evaluation-steps", default=50, type=int)
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
## Many shots to train on, one to be tested with

Glyphs are characters drawn from the fonts that come with matplotlib. Whole
scripts are kept back for the test. Reptile trains on support sets alone, so
that these hold ten images of each character; in the test there is one.
"""

heading("1. Glyphs")
glyphs = keras_meta.episodes.glyphs()
train, _, test = keras_meta.episodes.class_split(
    glyphs.labels, fractions=(0.65, 0.1, 0.25), groups=glyphs.scripts
)
print(f"{len(train)} classes to train on, {len(test)} to test with")


def episodes(classes, **settings):
    return keras_meta.episodes.from_arrays(
        glyphs.images, glyphs.labels, ways=5, classes=classes, **settings
    )


train_episodes = episodes(
    train, shots=10, queries=1, meta_batch_size=5, seed=arguments.seed
)
test_episodes = episodes(
    test,
    shots=1,
    queries=15,
    meta_batch_size=10,
    episodes=arguments.test_episodes,
    seed=1000,
)

"""
## Training

Five inner steps of ten images each, and an outer step that goes a part of the
way to where they led: the whole of it at first, and in the end nothing.
"""

heading("2. Training")
network = keras_meta.backbones.conv4(
    outputs=5, filters=32, downsampling="strides"
)
settings = dict(
    inner_steps=5,
    inner_learning_rate=0.001,
    batch_size=10,
    evaluation_steps=arguments.evaluation_steps,
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model = keras_meta.Reptile(network, **settings)
epochs = min(5, arguments.steps)
steps = arguments.steps // epochs
outer_rate = keras.optimizers.schedules.PolynomialDecay(
    1.0, epochs * steps, 0.0
)
model.compile(keras.optimizers.SGD(outer_rate), loss=loss, metrics=["accuracy"])
model.fit(train_episodes, steps_per_epoch=steps, epochs=epochs, verbose=2)
trained = time.time() - started

"""
## Two accuracies

Batch normalization of the queries makes the difference. By the statistics of
the support set, each query is answered on its own. By those of all queries of
the task they help each other, which the paper calls transduction: a second
model on the same network does so.
"""

heading("3. Scripts never seen")
together = keras_meta.Reptile(
    network, inner_loss=loss, normalization_statistics="batch", **settings
)
for name, answering in (
    ("each query on its own", model),
    ("transductive", together),
):
    result = keras_meta.evaluate_episodes(
        answering.predict_on_batch, test_episodes
    )
    print(
        f"{name:24s} {result.mean:6.1%} ± {result.interval:.1%}  "
        f"({result.count} episodes)",
        flush=True,
    )
print(f"chance                    {1 / 5:.1%}")

heading("Done")
model_path = output / "reptile_glyphs.keras"
model.save(model_path)
print(f"trained {epochs * steps} steps by {trained:.0f} s")
print(f"model: {model_path.resolve()}")
