"""
Title: Transfer baselines on glyphs
Description: Pretrain once on all classes, and learn a task on top of that.
Accelerator: None
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_meta
from keras_meta import update_rules

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="demo_output", type=pathlib.Path)
parser.add_argument("--epochs", default=6, type=int, help="of pretraining")
parser.add_argument("--steps", default=400, type=int, help="of RidgeHead")
parser.add_argument("--test-episodes", default=400, type=int)
parser.add_argument("--classes", default=None, type=int, help="at most")
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

arguments.output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)
started = time.time()
WAYS = 5
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Pretraining

Ordinary classification of all training classes at once. The classes of the
test are named, so that training on one of them would be an error.
"""

heading("1. Pretraining on all classes")
glyphs = keras_meta.episodes.glyphs()
train, _, test = keras_meta.episodes.class_split(
    glyphs.labels, fractions=(0.65, 0.1, 0.25), groups=glyphs.scripts
)
train = train[: arguments.classes]
network = keras_meta.backbones.conv4(filters=32, downsampling="strides")
pretrained = keras_meta.FrozenRepresentation(
    network, pretraining_outputs=len(train)
)
pretrained.compile(
    keras.optimizers.Adam(0.002), loss=LOSS, metrics=["accuracy"]
)
pretrained.fit(
    keras_meta.episodes.examples(
        glyphs.images, glyphs.labels, classes=train, held_out=test
    ),
    epochs=arguments.epochs,
    verbose=2,
)

"""
## The same representation, in several hands

All of these share the pretrained network. The last one is not a baseline: its
network is trained for the ridge regression that is put on top, episode by
episode.
"""


def episodes(classes, **settings):
    return keras_meta.episodes.from_arrays(
        glyphs.images,
        glyphs.labels,
        ways=WAYS,
        shots=1,
        classes=classes,
        **settings,
    )


models = {
    f"frozen, {classifier}": keras_meta.FrozenRepresentation(
        network, classifier
    )
    for classifier in ("nearest_centroid", "cosine", "ridge", "logistic")
}
for adapts in ("head", "all"):
    tuned = keras_meta.FineTuning(
        network,
        WAYS,
        adapts=adapts,
        update_rule=update_rules.Adam(0.003),
        inner_loss=LOSS,
    )
    models[f"fine-tuning, {adapts}"] = tuned
models["from scratch"] = keras_meta.FineTuning(
    keras_meta.backbones.conv4(filters=32, downsampling="strides"),
    WAYS,
    update_rule=update_rules.Adam(0.003),
    inner_loss=LOSS,
    normalization_statistics="support",
)

heading("2. RidgeHead, trained on episodes")
ridge = keras_meta.RidgeHead(
    keras_meta.backbones.conv4(filters=32, downsampling="strides")
)
rate = keras.optimizers.schedules.CosineDecay(0.003, arguments.steps)
ridge.compile(keras.optimizers.Adam(rate), loss=LOSS, metrics=["accuracy"])
ridge.fit(
    episodes(train, queries=5, meta_batch_size=4, seed=arguments.seed),
    steps_per_epoch=arguments.steps,
    verbose=2,
)
models["RidgeHead, meta-trained"] = ridge

heading("3. Scripts never seen, 5 ways, 1 shot")
unseen = episodes(
    test,
    queries=15,
    meta_batch_size=10,
    episodes=arguments.test_episodes,
    seed=1000,
)
for name, model in models.items():
    result = keras_meta.evaluate_episodes(
        model, unseen, "sparse_categorical_accuracy"
    )
    print(f"{name:25s} {result.mean:6.1%} ± {result.interval:.1%}", flush=True)

path = arguments.output / "pretrained.keras"
pretrained.save(path)
heading("Done")
print(f"pretrained model: {path.resolve()}")
