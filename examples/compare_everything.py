"""
Title: Every algorithm on the same tasks, with the same time to train
Description: Few-shot classification and regression; learners and baselines.
Accelerator: None

Each algorithm is trained in a process of its own for the same wall time, its
compilation by TensorFlow included, with Adam and a rate of 0.001 where the
algorithm does not ask for something else. Nothing was tuned. It then answers
the same test episodes as all others. What is reported:

- the accuracy, or the squared error, with the 95 % interval over episodes;
- how long it takes to adapt to one task and to answer its queries;
- the weights to store for a task: those that differ between two tasks;
- how far the memory of the process rose above what it was before.
"""

import argparse
import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_meta
from keras_meta import backbones
from keras_meta import update_rules

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
)
parser.add_argument("--output", default="comparison_output", type=pathlib.Path)
parser.add_argument("--seconds", default=60.0, type=float, help="of training")
parser.add_argument("--problems", default=["glyphs", "sinusoids"], nargs="+")
parser.add_argument("--algorithms", default=None, nargs="+")
parser.add_argument("--test-episodes", default=400, type=int)
parser.add_argument("--ways", default=5, type=int)
parser.add_argument("--shots", default=1, type=int, help="of glyphs")
parser.add_argument("--seed", default=0, type=int)
parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
arguments = parser.parse_args()

"""
## The algorithms

All of them have the same embedding of a picture, four convolutions, or the
same dense layers for a number. Families: those that adapt by gradient steps,
those that compare, those that read the support set (generate), and transfer
baselines, which never see an episode in training.
"""

WAYS = arguments.ways
SHOTS = {"glyphs": arguments.shots, "sinusoids": 10}
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
GAUSSIAN = keras_meta.losses.GaussianLikelihood()


def picture(**settings):
    return backbones.conv4(filters=32, downsampling="strides", **settings)


def number(outputs=None):
    return backbones.mlp((1,), (64, 64), outputs=outputs)


def frozen(classifier):
    return lambda classes: keras_meta.FrozenRepresentation(
        picture(), classifier, pretraining_outputs=classes
    )


def tuned(adapts, **settings):
    return lambda classes: keras_meta.FineTuning(
        picture(),
        WAYS,
        pretraining_outputs=classes,
        adapts=adapts,
        update_rule=update_rules.Adam(0.003),
        **settings,
    )


# Each makes a model for the number of training classes.
GLYPHS = {
    ("MAML", "gradient"): lambda _: keras_meta.MAML(
        picture(outputs=WAYS), inner_learning_rate=0.4, evaluation_steps=3
    ),
    ("MAML, head only (ANIL)", "gradient"): lambda _: keras_meta.MAML(
        picture(outputs=WAYS),
        inner_learning_rate=0.4,
        evaluation_steps=3,
        adapts="head",
    ),
    ("Meta-SGD", "gradient"): lambda _: keras_meta.MAML(
        picture(outputs=WAYS), update_rule=update_rules.MetaSGD(0.4)
    ),
    ("ImplicitMAML", "gradient"): lambda _: keras_meta.ImplicitMAML(
        picture(outputs=WAYS), inner_steps=8, inner_learning_rate=0.1
    ),
    ("ProtoMAML", "gradient"): lambda _: keras_meta.ProtoMAML(
        picture(), WAYS, inner_learning_rate=0.01, sharpness=0.1
    ),
    ("Reptile", "gradient"): lambda _: keras_meta.Reptile(
        picture(outputs=WAYS), evaluation_steps=50
    ),
    ("LearnedOptimizer", "gradient"): lambda _: keras_meta.LearnedOptimizer(
        picture(outputs=WAYS), inner_steps=20, truncation=5
    ),
    ("PrototypicalNetwork", "compare"): lambda _: (
        keras_meta.PrototypicalNetwork(picture(), sharpness=0.1)
    ),
    ("MatchingNetwork", "compare"): lambda _: keras_meta.MatchingNetwork(
        picture()
    ),
    ("SiameseNetwork", "compare"): lambda _: keras_meta.SiameseNetwork(
        keras.Sequential([picture(), keras.layers.UnitNormalization()])
    ),
    ("RelationNetwork", "compare"): lambda _: keras_meta.RelationNetwork(
        picture(flatten=False, halvings=3)
    ),
    ("RidgeHead", "compare"): lambda _: keras_meta.RidgeHead(picture()),
    ("HyperNetwork, FiLM", "generate"): lambda _: keras_meta.HyperNetwork(
        picture(outputs=WAYS), encoder=picture()
    ),
    ("HyperNetwork, head", "generate"): lambda _: keras_meta.HyperNetwork(
        picture(outputs=WAYS), encoder=picture(), generates="head"
    ),
    ("ConditionalNeuralProcess", "generate"): lambda _: (
        keras_meta.ConditionalNeuralProcess(picture(), WAYS)
    ),
    ("AttentiveNeuralProcess", "generate"): lambda _: (
        keras_meta.AttentiveNeuralProcess(picture(), WAYS)
    ),
    ("InContextLearner", "generate"): lambda _: keras_meta.InContextLearner(
        picture(), WAYS
    ),
    ("SNAIL", "generate"): lambda _: keras_meta.SNAIL(
        picture(), WAYS, max_supports=WAYS * SHOTS["glyphs"]
    ),
    ("MemoryAugmentedNetwork", "generate"): lambda _: (
        keras_meta.MemoryAugmentedNetwork(picture(), WAYS)
    ),
    ("FineTuning, all weights", "transfer"): tuned("all"),
    ("FineTuning, head only", "transfer"): tuned("head"),
    ("FrozenRepresentation, centroid", "transfer"): frozen("nearest_centroid"),
    ("FrozenRepresentation, cosine", "transfer"): frozen("cosine"),
    ("FrozenRepresentation, ridge", "transfer"): frozen("ridge"),
    ("FrozenRepresentation, logistic", "transfer"): frozen("logistic"),
    ("from scratch", "transfer"): lambda _: tuned(
        "all", normalization_statistics="support"
    )(None),
}

SINUSOIDS = {
    ("MAML", "gradient"): lambda _: keras_meta.MAML(
        number(1), inner_learning_rate=0.01, evaluation_steps=5
    ),
    ("Meta-SGD", "gradient"): lambda _: keras_meta.MAML(
        number(1), update_rule=update_rules.MetaSGD(0.01)
    ),
    ("ImplicitMAML", "gradient"): lambda _: keras_meta.ImplicitMAML(
        number(1), inner_steps=8, inner_learning_rate=0.01
    ),
    ("Reptile", "gradient"): lambda _: keras_meta.Reptile(
        number(1), inner_learning_rate=0.01, evaluation_steps=32
    ),
    ("LearnedOptimizer", "gradient"): lambda _: keras_meta.LearnedOptimizer(
        number(1), inner_steps=20, truncation=5
    ),
    ("MatchingNetwork", "compare"): lambda _: keras_meta.MatchingNetwork(
        number(32), regression=True
    ),
    ("RidgeHead", "compare"): lambda _: keras_meta.RidgeHead(
        number(32), regression=True
    ),
    ("HyperNetwork, FiLM", "generate"): lambda _: keras_meta.HyperNetwork(
        number(1), regression=True
    ),
    ("HyperNetwork, all weights", "generate"): lambda _: (
        keras_meta.HyperNetwork(number(1), regression=True, generates="all")
    ),
    ("ConditionalNeuralProcess", "generate"): lambda _: (
        keras_meta.ConditionalNeuralProcess(number(), 1, regression=True)
    ),
    ("AttentiveNeuralProcess", "generate"): lambda _: (
        keras_meta.AttentiveNeuralProcess(number(), 1, regression=True)
    ),
    ("InContextLearner", "generate"): lambda _: keras_meta.InContextLearner(
        number(), 1, regression=True
    ),
    ("SNAIL", "generate"): lambda _: keras_meta.SNAIL(
        number(), 1, max_supports=SHOTS["sinusoids"], regression=True
    ),
    ("MemoryAugmentedNetwork", "generate"): lambda _: (
        keras_meta.MemoryAugmentedNetwork(number(), 1, regression=True)
    ),
    ("FineTuning, all weights", "transfer"): lambda _: keras_meta.FineTuning(
        number(1), update_rule=update_rules.Adam(0.01)
    ),
    ("FineTuning, head only", "transfer"): lambda _: keras_meta.FineTuning(
        number(1), update_rule=update_rules.Adam(0.01), adapts="head"
    ),
    ("FrozenRepresentation, ridge", "transfer"): lambda _: (
        keras_meta.FrozenRepresentation(
            number(), "ridge", 1, strength=0.1, regression=True
        )
    ),
    ("from scratch", "transfer"): lambda _: keras_meta.FineTuning(
        number(1), update_rule=update_rules.Adam(0.01), inner_steps=200
    ),
}

PROBLEMS = {"glyphs": GLYPHS, "sinusoids": SINUSOIDS}

"""
## One of them

The characters are drawn once and kept in a file, for all processes.
"""


def glyphs():
    path = arguments.output / "glyphs.npz"
    if not path.exists():
        made = keras_meta.episodes.glyphs()
        train, _, test = keras_meta.episodes.class_split(
            made.labels, fractions=(0.65, 0.1, 0.25), groups=made.scripts
        )
        np.savez(
            path,
            images=made.images,
            labels=made.labels,
            train=train,
            test=test,
        )
    return np.load(path)


def glyph_data(model, training):
    """Returns episodes of unseen scripts, or what a model is trained on."""
    made = glyphs()
    labeled = made["images"], made["labels"]
    settings = dict(ways=WAYS, shots=SHOTS["glyphs"])
    if not training:
        return keras_meta.episodes.from_arrays(
            *labeled,
            **settings,
            queries=15,
            meta_batch_size=10,
            episodes=arguments.test_episodes,
            classes=made["test"],
            seed=1000,
        )
    if isinstance(
        model, (keras_meta.FineTuning, keras_meta.FrozenRepresentation)
    ):
        return keras_meta.episodes.examples(
            *labeled, classes=made["train"], held_out=made["test"]
        ).repeat()
    if isinstance(model, keras_meta.SiameseNetwork):
        return keras_meta.episodes.pairs(
            *labeled, batch_size=64, hard=0.5, classes=made["train"]
        )
    if isinstance(model, keras_meta.Reptile):
        # It learns from support sets alone, and more than a batch of them.
        settings["shots"] = max(10, settings["shots"])
    return keras_meta.episodes.from_arrays(
        *labeled,
        **settings,
        queries=5,
        meta_batch_size=4,
        classes=made["train"],
        seed=arguments.seed,
    )


def sinusoid_data(model, training):
    if not training:
        return keras_meta.episodes.sinusoids(
            SHOTS["sinusoids"],
            queries=100,
            meta_batch_size=10,
            episodes=arguments.test_episodes,
            seed=1000,
        )
    data = keras_meta.episodes.sinusoids(
        SHOTS["sinusoids"], queries=10, seed=arguments.seed
    )
    if isinstance(
        model, (keras_meta.FineTuning, keras_meta.FrozenRepresentation)
    ):
        return keras_meta.episodes.pooled(data)
    return data


def loss_for(problem, model):
    if isinstance(model, keras_meta.SiameseNetwork):
        return keras_meta.losses.ContrastiveLoss()
    if problem == "glyphs":
        return LOGITS
    return GAUSSIAN if getattr(model, "default_metric", None) else "mse"


class Budget(keras.callbacks.Callback):
    """Stops training when its time is over."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.steps = 0

    def on_train_begin(self, logs=None):
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps = batch + 1
        if time.perf_counter() - self.started > self.seconds:
            self.model.stop_training = True


def seconds_to_adapt(model, x):
    """Returns the median time to learn one task and answer its queries."""
    one = tf.nest.map_structure(lambda leaf: leaf[:1], x)
    answer = tf.function(lambda x: model(x, training=False))
    answer(one)
    times = []
    for _ in range(15):
        started = time.perf_counter()
        np.asarray(answer(one))
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def weights_per_task(model, x):
    """Returns how many numbers tell one task's model from another's."""
    if isinstance(model, keras_meta.HyperNetwork):
        # The others follow from these.
        return model.generated_weights
    one, other = (
        model.adapt(x["support_x"][task], x["support_y"][task])
        for task in (0, 1)
    )
    return sum(
        math.prod(variable.shape)
        for variable, another in zip(one.variables, other.variables)
        if np.any(variable.numpy() != another.numpy())
    )


def peak_megabytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, but for macOS, which counts bytes.
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def measure(problem, name):
    """Trains and tests one algorithm; returns a row of the table."""
    keras.utils.set_random_seed(arguments.seed)
    make = {name: make for (name, _), make in PROBLEMS[problem].items()}[name]
    data = {"glyphs": glyph_data, "sinusoids": sinusoid_data}[problem]
    classes = len(glyphs()["train"]) if problem == "glyphs" else None
    model = make(classes)
    optimizer = keras.optimizers.Adam(0.001)
    if isinstance(model, keras_meta.Reptile):
        optimizer = keras.optimizers.SGD(0.5)
    model.compile(optimizer, loss=loss_for(problem, model))
    test = data(model, training=False)
    x, _ = next(iter(test))
    before = peak_megabytes()
    budget = Budget(arguments.seconds)
    if name != "from scratch":
        model.fit(
            data(model, training=True),
            steps_per_epoch=10**9,
            callbacks=[budget],
            verbose=0,
        )
    metric = "sparse_categorical_accuracy" if problem == "glyphs" else None
    result = keras_meta.evaluate_episodes(model, test, metric)
    return {
        "mean": result.mean,
        "interval": result.interval,
        "values": result.values.tolist(),
        "training_steps": budget.steps,
        "seconds_to_adapt": seconds_to_adapt(model, x),
        "weights_per_task": weights_per_task(model, x),
        "megabytes": peak_megabytes() - before,
    }


"""
## All of them

A table, a picture, and how the best learner compares with the best baseline on
the same episodes.
"""


def measure_in_a_process(problem, name):
    command = [sys.executable, __file__, "--one", problem, name]
    for option in ("output", "seconds", "test_episodes", "ways", "shots"):
        value = getattr(arguments, option)
        command += [f"--{option.replace('_', '-')}", str(value)]
    done = subprocess.run(
        [*command, "--seed", str(arguments.seed)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def print_table(problem, rows):
    unit = "accuracy" if problem == "glyphs" else "squared error"
    print(f"\n### {problem}\n")
    print(
        f"| algorithm | family | {unit} | steps | adapts in | weights per "
        "task | memory |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        if problem == "glyphs":
            measured = f"{row['mean']:.1%} ± {row['interval']:.1%}"
        else:
            measured = f"{row['mean']:.3f} ± {row['interval']:.3f}"
        print(
            f"| {row['algorithm']} | {row['family']} | {measured} | "
            f"{row['training_steps']:,} | "
            f"{1000 * row['seconds_to_adapt']:.1f} ms | "
            f"{row['weights_per_task']:,} | {row['megabytes']:.0f} MB |"
        )


def print_verdict(problem, rows):
    """Says who wins, by the differences on the same episodes."""
    families = {}
    for row in rows:
        family = "baseline" if row["family"] == "transfer" else "learner"
        families.setdefault(family, row)
    if len(families) < 2:
        return
    learner, baseline = families["learner"], families["baseline"]
    differences = np.subtract(learner["values"], baseline["values"])
    if problem != "glyphs":
        differences = -differences
    error = 1.96 * differences.std(ddof=1) / math.sqrt(len(differences))
    better = "better" if differences.mean() > 0 else "WORSE"
    clear = (
        ""
        if abs(differences.mean()) > error
        else ", which is no more than chance"
    )
    print(
        f"\nThe best learner, {learner['algorithm']}, is {better} than the "
        f"best baseline, {baseline['algorithm']}, by "
        f"{abs(differences.mean()):.3f} ± {error:.3f}{clear}."
    )
    beaten = [
        row["algorithm"]
        for row in rows[rows.index(baseline) + 1 :]
        if row["family"] != "transfer"
    ]
    print(f"That baseline is ahead of: {', '.join(beaten) or 'no learner'}.")


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colors = {
        "gradient": "tab:blue",
        "compare": "tab:green",
        "generate": "tab:orange",
        "transfer": "tab:gray",
    }
    longest = max(map(len, results.values()))
    figure, axes = plt.subplots(
        1,
        len(results),
        figsize=(6.5 * len(results), 1.2 + 0.3 * longest),
        layout="constrained",
        squeeze=False,
    )
    for axis, (problem, rows) in zip(axes[0], results.items()):
        places = np.arange(len(rows))
        axis.barh(
            places,
            [row["mean"] for row in rows],
            xerr=[row["interval"] for row in rows],
            color=[colors[row["family"]] for row in rows],
            error_kw={"elinewidth": 1, "capsize": 2},
        )
        axis.set_yticks(places, [row["algorithm"] for row in rows])
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
        if problem == "glyphs":
            axis.set_xlabel(f"accuracy, {WAYS} ways, {SHOTS[problem]} shot")
            axis.axvline(1 / WAYS, color="black", linestyle=":", linewidth=1)
        else:
            axis.set_xscale("log")
            axis.set_xlabel("squared error (lower is better)")
        axis.set_title(f"{problem}, {arguments.seconds:.0f} s of training")
    patches = [plt.Rectangle((0, 0), 1, 1, color=c) for c in colors.values()]
    figure.legend(patches, list(colors), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)


def main():
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = {}
    for problem in arguments.problems:
        if problem == "glyphs":
            glyphs()
        results[problem] = rows = []
        for name, family in PROBLEMS[problem]:
            if arguments.algorithms and name not in arguments.algorithms:
                continue
            row = measure_in_a_process(problem, name)
            rows.append({"algorithm": name, "family": family, **row})
            rows.sort(key=lambda row: row["mean"], reverse=problem == "glyphs")
            # After each, so that nothing is lost when time runs out.
            (arguments.output / "comparison.json").write_text(
                json.dumps(results, indent=1)
            )
            print(
                f"{problem}: {name}: {row['mean']:.4f} ± {row['interval']:.4f}",
                flush=True,
            )
    for problem, rows in results.items():
        print_table(problem, rows)
        print_verdict(problem, rows)
    path = arguments.output / "compare_everything.png"
    draw(results, path)
    print(f"\npicture: {path.resolve()}")


if arguments.one:
    print(json.dumps(measure(*arguments.one)))
else:
    main()
