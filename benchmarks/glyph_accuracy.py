"""
Title: Accuracy of every algorithm on glyphs
Description: 5 and 20 ways, 1 and 5 shots, on scripts never trained on, with
    one embedding and the same episodes for all.
Accelerator: None

    python benchmarks/glyph_accuracy.py [--steps 400] [--output FOLDER]

Nothing is tuned on what is reported: all algorithms share one optimizer
setting, and their own settings are the defaults or those of their papers.
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_meta

FILTERS = 32
QUERIES = 5
# The episodes of a training step, and of evaluation.
META_BATCH = 4
TEST_META_BATCH = 10

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
)
parser.add_argument("--steps", default=400, type=int)
parser.add_argument("--episodes", default=400, type=int)
parser.add_argument("--seed", default=0, type=int)
parser.add_argument("--ways", default=[5, 20], type=int, nargs="+")
parser.add_argument("--shots", default=[1, 5], type=int, nargs="+")
parser.add_argument("--algorithms", default=None, nargs="+")
parser.add_argument("--output", default="benchmark_output", type=pathlib.Path)
arguments = parser.parse_args()

glyphs = keras_meta.episodes.glyphs()
train_classes, _, test_classes = keras_meta.episodes.class_split(
    glyphs.labels, fractions=(0.65, 0.1, 0.25), groups=glyphs.scripts
)


def embedding(**settings):
    return keras_meta.backbones.conv4(
        filters=FILTERS, downsampling="strides", **settings
    )


def optimization_based(algorithm=keras_meta.MAML, **settings):
    """Returns what makes a model that adapts a network with a head."""

    def make(ways):
        return algorithm(
            embedding(outputs=ways),
            **{"inner_learning_rate": 0.4, "evaluation_steps": 3} | settings,
        )

    return make


def maml_plus_plus(ways):
    return keras_meta.MAML(
        embedding(outputs=ways),
        inner_steps=3,
        update_rule=keras_meta.update_rules.LearnedStepSizes(0.4, steps=3),
        first_order_iterations=arguments.steps // 4,
        multi_step_loss_iterations=arguments.steps // 2,
        normalization_scales="per_step",
    )


ALGORITHMS = {
    "MAML": optimization_based(),
    "MAML, first order": optimization_based(first_order=True),
    "MAML, head only (ANIL)": optimization_based(adapts="head"),
    "MAML, body only (BOIL)": optimization_based(adapts="body"),
    "Meta-SGD": lambda ways: keras_meta.MAML(
        embedding(outputs=ways),
        evaluation_steps=3,
        update_rule=keras_meta.update_rules.MetaSGD(0.4),
    ),
    "MAML++": maml_plus_plus,
    "ImplicitMAML": optimization_based(
        keras_meta.ImplicitMAML,
        inner_steps=8,
        inner_learning_rate=0.1,
        evaluation_steps=8,
    ),
    "ProtoMAML": lambda ways: keras_meta.ProtoMAML(
        embedding(),
        ways,
        inner_learning_rate=0.01,
        evaluation_steps=3,
        sharpness=0.1,
    ),
    # With the settings of its paper, but for the number of steps.
    "Reptile": lambda ways: keras_meta.Reptile(
        embedding(outputs=ways),
        evaluation_steps=50,
        normalization_statistics="batch",
    ),
    "PrototypicalNetwork": lambda ways: keras_meta.PrototypicalNetwork(
        embedding(), ways=ways
    ),
    # Squared distances of 128 features are large; see its page.
    "PrototypicalNetwork, sharpness 0.1": lambda ways: (
        keras_meta.PrototypicalNetwork(embedding(), sharpness=0.1, ways=ways)
    ),
    "MatchingNetwork": lambda ways: keras_meta.MatchingNetwork(
        embedding(), ways=ways
    ),
    "MatchingNetwork, in context": lambda ways: keras_meta.MatchingNetwork(
        embedding(), context_steps=3, ways=ways
    ),
    # Where all embeddings are of length 1, a margin of 1 means something.
    "SiameseNetwork": lambda ways: keras_meta.SiameseNetwork(
        keras.Sequential([embedding(), keras.layers.UnitNormalization()]),
        ways=ways,
    ),
    "SiameseNetwork, verification": lambda ways: keras_meta.SiameseNetwork(
        embedding(), head="verification", ways=ways
    ),
    # A relation compares maps; those of the others would be 2 x 2 pixels.
    "RelationNetwork": lambda ways: keras_meta.RelationNetwork(
        embedding(flatten=False, halvings=3), ways=ways
    ),
}


def episodes(ways, shots, classes, seed, **settings):
    return keras_meta.episodes.from_arrays(
        glyphs.images,
        glyphs.labels,
        ways=ways,
        shots=shots,
        classes=classes,
        seed=seed,
        **settings,
    )


def train(model, ways, shots):
    """Trains a model on the same number of images, whatever it takes."""
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.003, arguments.steps)
    )
    if isinstance(model, keras_meta.Reptile):
        # Its outer step is a part of the way that the inner steps went.
        optimizer = keras.optimizers.SGD(
            keras.optimizers.schedules.PolynomialDecay(1.0, arguments.steps, 0)
        )
        # It learns from support sets alone, and more than a batch of them.
        shots = max(shots, 10)
    if not isinstance(model, keras_meta.SiameseNetwork):
        model.compile(
            optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        data = episodes(
            ways,
            shots,
            train_classes,
            arguments.seed,
            queries=QUERIES,
            meta_batch_size=META_BATCH,
        )
    else:
        # Pairs, as its paper has it, and not episodes.
        loss = keras_meta.losses.ContrastiveLoss(margin=1.0)
        if model.head == "verification":
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(optimizer, loss=loss)
        data = keras_meta.episodes.pairs(
            glyphs.images,
            glyphs.labels,
            batch_size=META_BATCH * ways * (shots + QUERIES) // 2,
            hard=0.5,
            classes=train_classes,
            seed=arguments.seed,
        )
    model.fit(data, steps_per_epoch=arguments.steps, verbose=0)


results = []
for ways in arguments.ways:
    for shots in arguments.shots:
        test = episodes(
            ways,
            shots,
            test_classes,
            1000,
            queries=15,
            meta_batch_size=TEST_META_BATCH,
            episodes=arguments.episodes,
        )
        for name in arguments.algorithms or ALGORITHMS:
            keras.utils.set_random_seed(arguments.seed)
            started = time.time()
            model = ALGORITHMS[name](ways)
            train(model, ways, shots)
            seconds = time.time() - started
            measured = keras_meta.evaluate_episodes(
                model, test, "sparse_categorical_accuracy"
            )
            results.append(
                {
                    "algorithm": name,
                    "ways": ways,
                    "shots": shots,
                    "accuracy": measured.mean,
                    "interval": measured.interval,
                    "episodes": measured.count,
                    "training_seconds": seconds,
                }
            )
            print(
                f"{ways}-way {shots}-shot {name:30s} {measured.mean:6.1%} ± "
                f"{measured.interval:.1%}  (trained in {seconds:.0f} s)",
                flush=True,
            )
            arguments.output.mkdir(parents=True, exist_ok=True)
            settings = {
                key: str(value) for key, value in vars(arguments).items()
            }
            (arguments.output / "glyph_accuracy.json").write_text(
                json.dumps({"settings": settings, "results": results}, indent=1)
            )

columns = sorted({(row["ways"], row["shots"]) for row in results})
print(
    "\n| algorithm | "
    + " | ".join(f"{w}-way {s}-shot" for w, s in columns)
    + " |"
)
print("|---" * (len(columns) + 1) + "|")
for name in arguments.algorithms or ALGORITHMS:
    cells = {
        (row["ways"], row["shots"]): (
            f"{100 * row['accuracy']:.1f} ± {100 * row['interval']:.1f}"
        )
        for row in results
        if row["algorithm"] == name
    }
    print(
        f"| {name} | " + " | ".join(cells[column] for column in columns) + " |"
    )
