"""
Title: The Omniglot challenge from five alphabets
Description: A prototypical network for 20-way 1-shot within one alphabet.
Accelerator: None
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_meta

SETS = ("small1", "small2")
IMAGE_SIZE = 28
# The size of the files, and of the copies that images are redrawn from: larger
# ones, so that strokes stay smooth.
FILE_SIZE = 105
SOURCE_SIZE = 56

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--data",
    required=True,
    help="folder of images_background_small1.zip and ..._small2.zip, or of "
    "these unpacked; or 'tfds', to take them from TensorFlow Datasets",
)
parser.add_argument("--background", default="small1", choices=SETS)
parser.add_argument(
    "--validation",
    help="'small1', 'small2', or a folder or zip in the same layout",
)
parser.add_argument("--runs", help="folder of run01 ... run20")
parser.add_argument("--seeds", default=[0], type=int, nargs="+")
parser.add_argument("--steps", default=4000, type=int)
parser.add_argument("--ways", default=60, type=int)
parser.add_argument(
    "--views",
    default=20,
    type=int,
    help="distorted copies whose embeddings are averaged at test time",
)
parser.add_argument(
    "--distance",
    default="squared_euclidean",
    choices=("squared_euclidean", "euclidean", "cosine"),
)
parser.add_argument("--width", default=32, type=int)
parser.add_argument("--no-centering", action="store_true")
parser.add_argument("--no-class-augmentation", action="store_true")
parser.add_argument("--no-image-augmentation", action="store_true")
parser.add_argument(
    "--test-episodes", default=100, type=int, help="of each alphabet"
)
parser.add_argument("--output", default="omniglot_output", type=pathlib.Path)
arguments = parser.parse_args()

"""
## One place and one size

Black strokes on white become white strokes on black, a little thicker, with
their center of mass in the middle and their spread the same for all: where
and how large a character was drawn does not tell which it is.
"""


def square_grid(points):
    """Returns `[points ** 2, 2]`, (x, y) from -1 to 1."""
    axis = np.linspace(-1, 1, points, dtype="float32")
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def sample(images, coordinates):
    """Reads images `[count, size, size, 1]` where it is told to, bilinearly.

    The coordinates `[count, pixels, 2]` are x and y, from -1 to 1.
    """
    size = images.shape[1]
    flat = tf.reshape(images, [-1, size * size])
    position = (coordinates + 1) / 2 * (size - 1)
    corner = tf.floor(position)
    share = position - corner
    corner = tf.cast(corner, "int32")
    result = 0.0
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at = corner + shift
        weight = tf.reduce_prod(
            tf.where(tf.equal(shift, 1), share, 1 - share), axis=-1
        )
        inside = tf.reduce_all((at >= 0) & (at < size), axis=-1)
        at = tf.clip_by_value(at, 0, size - 1)
        values = tf.gather(flat, at[..., 1] * size + at[..., 0], batch_dims=1)
        result += tf.where(inside, weight * values, 0.0)
    side = round(coordinates.shape[1] ** 0.5)
    return tf.reshape(result, [-1, side, side, 1])


def centered(images):
    """Centers images `[count, size, size, 1]`, white strokes from 0 to 1."""
    if arguments.no_centering:
        return tf.image.resize(images, (SOURCE_SIZE,) * 2, method="area")
    places = square_grid(images.shape[1])
    ink = tf.reshape(images, [-1, len(places), 1])
    ink /= tf.reduce_sum(ink, axis=1, keepdims=True) + 1e-6
    middle = tf.reduce_sum(ink * places, axis=1, keepdims=True)
    squares = tf.reduce_sum(ink * (places - middle) ** 2, axis=(1, 2))
    # A dot must not fill the image.
    spread = tf.maximum(tf.sqrt(squares), 0.12)[:, None, None]
    thick = tf.nn.max_pool2d(images, 3, 1, "SAME")
    thick = tf.nn.avg_pool2d(thick, 2, 1, "SAME")
    coordinates = middle + square_grid(SOURCE_SIZE) * spread / 0.42
    return sample(thick, coordinates)


"""
## Reading

An alphabet is never split between training and evaluation: what occurs in
the background set is left out of the validation set.
"""


def read(name):
    """Returns `LabeledImages` of a background set, or of a folder."""
    if arguments.data == "tfds" and name in SETS:
        images = read_tfds(name)
    else:
        images = keras_meta.episodes.image_folders(
            find(name), (FILE_SIZE, FILE_SIZE), color="grayscale"
        )
    chunks = np.array_split(images.images, 1 + len(images.images) // 256)
    strokes = [centered(1 - chunk.astype("float32") / 255) for chunk in chunks]
    strokes = np.round(255 * np.concatenate(strokes)).astype("uint8")
    return images._replace(images=strokes)


def find(name):
    if name not in SETS:
        return pathlib.Path(name)
    folder = pathlib.Path(arguments.data) / f"images_background_{name}"
    return folder if folder.is_dir() else folder.with_suffix(".zip")


def read_tfds(name):
    import tensorflow_datasets as tfds

    data, info = tfds.load("omniglot", split=name, with_info=True)
    examples = list(tfds.as_numpy(data))
    classes, first, labels = np.unique(
        [example["label"] for example in examples],
        return_index=True,
        return_inverse=True,
    )
    names = info.features["alphabet"].names
    return keras_meta.episodes.labeled_images.LabeledImages(
        images=np.stack([example["image"][..., :1] for example in examples]),
        labels=labels,
        classes=[str(number) for number in classes],
        groups=[names[examples[index]["alphabet"]] for index in first],
        files=None,
    )


def alphabet_of(group):
    # A folder of several sets has them before the alphabets.
    return group.split("/")[-1]


background = read(arguments.background)
alphabets = sorted(set(map(alphabet_of, background.groups)))
print(
    f"Training on {len(background.images)} images of "
    f"{len(background.classes)} characters, {', '.join(alphabets)}."
)

"""
## More classes, and more images of each

A character that is turned by a quarter, or mirrored, is another character:
eight classes for one. And each image is drawn anew each time it is seen:
turned a little, sheared, stretched, moved, and bent.
"""


def with_symmetries(images, labels):
    """Adds turned and mirrored characters as classes of their own."""
    classes = labels.max() + 1
    all_images, all_labels = [], []
    for symmetry in range(8):
        turned = np.rot90(images, symmetry % 4, axes=(1, 2))
        mirrored = turned[:, :, ::-1] if symmetry >= 4 else turned
        all_images.append(mirrored)
        all_labels.append(labels + symmetry * classes)
    return np.concatenate(all_images), np.concatenate(all_labels)


PIXELS = square_grid(IMAGE_SIZE)
# How much each pixel follows each of 4 x 4 handles that are pulled.
HANDLES = np.exp(
    -np.sum((PIXELS[:, None] - square_grid(4)) ** 2, axis=-1) / 0.4
).astype("float32")
HANDLES /= HANDLES.sum(axis=1, keepdims=True)


def random_coordinates(count, affine=1.0, bending=1.0):
    """Returns where to read each pixel, `[count, pixels, 2]`."""

    def normal(scale, *shape):
        return scale * tf.random.normal([count, *shape])

    angle = normal(0.14 * affine)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    turn = tf.stack([cosine, -sine, sine, cosine], axis=-1)
    one, zero = tf.ones_like(angle), tf.zeros_like(angle)
    shear = tf.stack([one, normal(0.16 * affine), zero, one], axis=-1)
    stretch = tf.exp(normal(0.14 * affine, 1, 2))
    matrix = (
        tf.reshape(turn, [-1, 2, 2]) @ tf.reshape(shear, [-1, 2, 2]) * stretch
    )
    coordinates = tf.einsum("nij,pj->npi", matrix, PIXELS)
    coordinates += normal(0.08 * affine, 1, 2)
    return coordinates + HANDLES @ normal(0.13 * bending, 16, 2)


def redraw(images, coordinates):
    """Redraws images `[tasks, examples, size, size, 1]`."""
    flat = tf.reshape(images, [-1, *images.shape[2:]])
    drawn = sample(flat, coordinates(tf.shape(flat)[0]))
    tasks_and_examples = tf.unstack(tf.shape(images)[:2])
    return tf.reshape(drawn, [*tasks_and_examples, *drawn.shape[1:]])


def as_drawn(count):
    """The coordinates that leave an image as it is."""
    return tf.broadcast_to(PIXELS, [count, *PIXELS.shape])


def redrawn(coordinates):
    """Returns a function that redraws the images of episodes."""

    def change(x, y):
        images = {
            key: redraw(x[key], coordinates) for key in ("support_x", "query_x")
        }
        return {**x, **images}, y

    return change


"""
## Training

One episode a step, of many more ways than will be asked for. The pooling
comes before the normalization, which costs half the time. Squared distances
of two thousand features would make every answer certain from the start, so
they are scaled down; cosines are scaled up.
"""

SHARPNESS = {"squared_euclidean": 0.03, "euclidean": 1.0, "cosine": 15.0}


def make_embedding():
    x = inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1))
    for block in range(4):
        filters = arguments.width * 2**block
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        if block < 3:
            x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(inputs, keras.layers.Flatten()(x))


def train(seed):
    keras.utils.set_random_seed(seed)
    images, labels = background.images, background.labels
    if not arguments.no_class_augmentation:
        images, labels = with_symmetries(images, labels)
    ways = min(arguments.ways, labels.max() + 1)
    episodes = keras_meta.episodes.from_arrays(
        images,
        labels,
        ways=ways,
        shots=1,
        queries=4,
        meta_batch_size=1,
        seed=seed,
    )
    redraws = not arguments.no_image_augmentation
    coordinates = random_coordinates if redraws else as_drawn
    episodes = episodes.map(redrawn(coordinates), num_parallel_calls=2)
    model = keras_meta.PrototypicalNetwork(
        make_embedding(),
        distance=arguments.distance,
        sharpness=SHARPNESS[arguments.distance],
        ways=ways,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(3e-3, arguments.steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    epochs = min(10, arguments.steps)
    model.fit(
        episodes.prefetch(4),
        steps_per_epoch=arguments.steps // epochs,
        epochs=epochs,
        verbose=2,
    )
    return model


"""
## Evaluation

An episode is of one alphabet, with 20 of its characters (or all that it has)
and one example of each. A query is answered on its own, by the embedding
alone or by the mean of the embeddings of a few distorted copies.
"""


class Views(keras.Model):
    """Averages the embeddings of copies of an image, the first as drawn."""

    def __init__(self, network, views):
        super().__init__()
        self.network = network
        keras.utils.set_random_seed(1)
        others = random_coordinates(views - 1, affine=0.5, bending=0.0)
        self.coordinates = tf.concat([as_drawn(1), others], axis=0)
        self.build((None, SOURCE_SIZE, SOURCE_SIZE, 1))

    def build(self, input_shape):
        self.built = True

    def call(self, images):
        views = len(self.coordinates)
        copies = sample(
            tf.repeat(images, views, axis=0),
            tf.tile(self.coordinates, [tf.shape(images)[0], 1, 1]),
        )
        embeddings = self.network(copies, training=False)
        shape = [-1, views, *embeddings.shape[1:]]
        return tf.reduce_mean(tf.reshape(embeddings, shape), axis=1)


def with_views(model, views):
    return keras_meta.PrototypicalNetwork(
        Views(model.network, views), distance=model.distance
    )


def validation_episodes():
    """Returns episodes of each alphabet that is not trained on."""
    images = read(arguments.validation)
    groups = [alphabet_of(group) for group in images.groups]
    shared = sorted(set(groups) & set(alphabets))
    if shared:
        print(f"Left out, since they are trained on: {', '.join(shared)}.")
    episodes = {}
    for alphabet in sorted(set(groups) - set(alphabets)):
        classes = [
            number for number, group in enumerate(groups) if group == alphabet
        ]
        episodes[alphabet] = keras_meta.episodes.from_arrays(
            images.images,
            images.labels,
            ways=min(20, len(classes)),
            shots=1,
            queries=1,
            meta_batch_size=10,
            episodes=arguments.test_episodes,
            classes=classes,
        )
        if len(classes) < 20:
            print(f"{alphabet} has {len(classes)} characters, all are used.")
    if not episodes:
        raise SystemExit("No alphabet is left to validate on.")
    return episodes


def challenge_runs():
    """Returns the runs of the challenge, centered as all other images."""

    def center(x, y):
        images = {
            key: centered(1 - x[key][0])[None]
            for key in ("support_x", "query_x")
        }
        return {**x, **images}, y

    return keras_meta.episodes.one_shot_runs(
        arguments.runs, (FILE_SIZE, FILE_SIZE)
    ).map(center)


def errors(model, episodes):
    """Returns the share of wrong answers in each episode."""
    return 1 - keras_meta.evaluate_episodes(model, episodes).values


"""
## The report

The mean over the alphabets, and over the seeds with a 95 % interval.
"""

# Half the width of the interval of a mean of 2 to 10 values, in standard
# errors (Student's t, 97.5 %).
QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def summary(values):
    text = f"{np.mean(values):.2%}"
    if 2 <= len(values) <= 10:
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        text += f" ± {QUANTILES[len(values) - 2] * error:.2%}"
    return f"{text} ({len(values)} seed{'s' * (len(values) > 1)})"


validation = validation_episodes() if arguments.validation else {}
runs = challenge_runs() if arguments.runs else None
trials = [len(y[0]) for _, y in runs] if arguments.runs else []
arguments.output.mkdir(parents=True, exist_ok=True)
results = []
for seed in arguments.seeds:
    print(f"\n=== seed {seed}", flush=True)
    started = time.time()
    model = train(seed)
    result = {"seed": seed, "training_seconds": time.time() - started}
    print(f"trained in {result['training_seconds']:.0f} s", flush=True)
    for views in sorted({1, arguments.views}):
        averaged = with_views(model, views)
        if validation:
            by_alphabet = {
                alphabet: float(np.mean(errors(averaged, episodes)))
                for alphabet, episodes in validation.items()
            }
            error = float(np.mean(list(by_alphabet.values())))
            result[f"validation_{views}"] = error
            result[f"alphabets_{views}"] = by_alphabet
            parts = ", ".join(f"{k} {v:.2%}" for k, v in by_alphabet.items())
            print(f"validation error, {views} view(s): {error:.2%} ({parts})")
        if runs is not None:
            of_runs = errors(averaged, runs)
            wrong = sum(map(round, of_runs * trials))
            result[f"runs_{views}"] = float(np.mean(of_runs))
            for number, error in enumerate(of_runs, 1):
                print(f"  run {number:02d}: {error:.1%}")
            print(
                f"challenge error, {views} view(s): {np.mean(of_runs):.2%}, "
                f"{wrong} errors of {sum(trials)}"
            )
    results.append(result)
    model.save(arguments.output / f"seed{seed}.keras")
    settings = {k: str(v) for k, v in vars(arguments).items()}
    (arguments.output / "results.json").write_text(
        json.dumps({"settings": settings, "results": results}, indent=1)
    )

print()
for name in results[0]:
    if name.startswith(("validation", "runs")):
        kind, views = name.split("_")
        values = [result[name] for result in results]
        print(f"{kind} error, {views} view(s): {summary(values)}")
