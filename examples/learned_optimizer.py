"""
Title: An optimizer that is learned, on quadratics
Description: Learn to minimize, and compare with Adam at its best rate.
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

import keras_meta

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="demo_output", type=pathlib.Path)
parser.add_argument("--steps", default=600, type=int)
parser.add_argument("--inner-steps", default=100, type=int)
parser.add_argument("--seed", default=0, type=int)
parser.add_argument("--tasks", default=200, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)
started = time.time()

TRAINED_STEPS = arguments.inner_steps
LONGER = 3 * TRAINED_STEPS
DIMENSIONS = 10
RATES = [float(10**power) for power in np.arange(-3.0, 0.1, 0.5)]


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Training

A task is to minimize the mean of (W v - y)^2 over v, with random W and y: the
first experiment of the paper. As an episode, the rows of W are the examples, y
is what to answer, and the network is one linear layer. The optimizer that does
it is an LSTM with a state for each number of v. It is trained itself, on many
such trainings.
"""


def quadratics(seed, tasks=32):
    """Returns endless meta-batches of random quadratics."""

    def draw(number):
        matrices = tf.random.stateless_normal(
            [tasks, DIMENSIONS, DIMENSIONS], [2 * seed, number]
        )
        targets = tf.random.stateless_normal(
            [tasks, DIMENSIONS, 1], [2 * seed + 1, number]
        )
        # The queries, which judge, are the support set itself.
        x = {"support_x": matrices, "support_y": targets, "query_x": matrices}
        return x, targets

    return tf.data.Dataset.counter().map(lambda n: draw(tf.cast(n, "int32")))


def linear(dimensions):
    return keras.Sequential(
        [keras.Input((dimensions,)), keras.layers.Dense(1, use_bias=False)]
    )


heading("1. Learning to minimize")
network = linear(DIMENSIONS)
learned = keras_meta.LearnedOptimizer(
    network,
    inner_steps=TRAINED_STEPS,
    truncation=max(1, TRAINED_STEPS // 5),
    seed=arguments.seed,
)
print(f"{learned.update_rule.count_params()} numbers are learned.")
epochs = min(4, arguments.steps)
steps_per_epoch = arguments.steps // epochs
learned.compile(
    keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(
            0.003, epochs * steps_per_epoch, 0.03
        ),
        clipnorm=1.0,
    ),
    loss="mse",
)
learned.fit(
    quadratics(arguments.seed),
    steps_per_epoch=steps_per_epoch,
    epochs=epochs,
    verbose=2,
)

"""
## Any Keras model

What was learned is now an optimizer as others: for another network, here, and
compiled as usual.
"""

heading("2. In compile() and fit() of another model")
x = np.linspace(-5, 5, 50, dtype="float32")[:, None]
other = keras_meta.backbones.mlp((1,), (30,), activation="tanh")
other.compile(optimizer=learned.keras_optimizer(), loss="mse")
history = other.fit(x, np.sin(x), batch_size=50, epochs=100, verbose=0)
losses = history.history["loss"]
print(f"loss of the first step {losses[0]:.3f}, of the last {losses[-1]:.3f}")

"""
## How good is that?

Against the optimizers of Keras, each at the best of seven rates. The rates are
chosen on other tasks than those that are reported, for each kind of task and
each number of steps anew. All start from the same weights. Optimizers treat
each number by itself, so that one of them can train the networks of all tasks
side by side.
"""


def quadratic_tasks(dimensions):
    def tasks(seed):
        generator = np.random.default_rng(seed)
        shape = (arguments.tasks, dimensions)
        matrices = generator.normal(size=(*shape, dimensions))
        targets = generator.normal(size=(*shape, 1))
        # Tensors, or TensorFlow would trace anew for each array.
        return tf.cast(matrices, "float32"), tf.cast(targets, "float32")

    return tasks


def waves(seed):
    """Returns the points of waves, `[tasks, 20, 1]` twice."""
    episodes = keras_meta.episodes.sinusoids(
        shots=20,
        queries=1,
        meta_batch_size=arguments.tasks,
        episodes=arguments.tasks,
        seed=seed,
    )
    x, _ = next(iter(episodes))
    return x["support_x"], x["support_y"]


class Trainings:
    """Trains a network for each task, all from weights of their own."""

    def __init__(self, network, optimizer, steps):
        count = arguments.tasks
        generator = np.random.default_rng(arguments.seed + 1)
        self.starts = [
            np.mean(w) + np.std(w) * generator.normal(size=(count, *w.shape))
            for w in network.get_weights()
        ]
        self.weights = [keras.Variable(start) for start in self.starts]
        self.optimizer = optimizer
        optimizer.build(self.weights)
        self.state = [variable.numpy() for variable in optimizer.variables]

        def loss_of(task):
            weights, x, y = task
            answers, _ = network.stateless_call(weights, [], x)
            return tf.reduce_mean(tf.square(answers - y))

        def losses_of(values, x, y):
            return tf.vectorized_map(loss_of, (values, x, y))

        @tf.function
        def train(x, y):
            losses = tf.TensorArray(tf.float32, steps + 1)
            for step in tf.range(steps):
                values = [variable.value for variable in self.weights]
                with tf.GradientTape() as tape:
                    tensors = [tf.convert_to_tensor(v) for v in values]
                    now = losses_of(tensors, x, y)
                losses = losses.write(step, now)
                optimizer.apply(tape.gradient(now, values), self.weights)
            values = [tf.convert_to_tensor(v) for v in self.weights]
            return losses.write(steps, losses_of(values, x, y)).stack()

        self.train = train

    def curves(self, tasks, rate=None):
        """Returns the losses of each task, `[tasks, steps + 1]`."""
        for variable, value in zip(self.optimizer.variables, self.state):
            variable.assign(value)
        for variable, value in zip(self.weights, self.starts):
            variable.assign(value)
        if rate is not None:
            self.optimizer.learning_rate = rate
        # What diverged is as bad as it gets.
        return np.nan_to_num(self.train(*tasks).numpy().T, nan=1e9, posinf=1e9)


OPTIMIZERS = {
    "SGD": keras.optimizers.SGD,
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "RMSprop": keras.optimizers.RMSprop,
    "Adam": keras.optimizers.Adam,
}
MEASURES = {
    "mean over the steps": lambda curves: curves[:, 1:].mean(axis=1),
    "after the last step": lambda curves: curves[:, -1],
}


def mean_and_interval(values):
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):7.3f} ± {1.96 * error:.3f}"


def compare(title, network, tasks_of, horizons):
    """Prints a table for each horizon; returns curves by name for each."""
    steps = max(horizons)
    validation = tasks_of(arguments.seed + 500)
    test = tasks_of(arguments.seed + 1000)
    trainer = Trainings(network, learned.keras_optimizer(), steps)
    of_learned = trainer.curves(test)
    by_rate = {}
    for name, make in OPTIMIZERS.items():
        trainer = Trainings(network, make(), steps)
        by_rate[name] = [
            [trainer.curves(tasks, rate) for rate in RATES]
            for tasks in (validation, test)
        ]
    drawn = {}
    for horizon in horizons:
        print(f"\n{title}, {horizon} steps: mean squared error")
        drawn[f"{title}, {horizon} steps"] = curves = {}
        for measure, value_of in MEASURES.items():
            own = value_of(of_learned[:, : horizon + 1])
            print(f"  {measure:20s} learned   {mean_and_interval(own)}")
            curves["learned"] = of_learned[:, : horizon + 1]
            for name, (chosen_on, reported) in by_rate.items():
                means = [
                    value_of(run[:, : horizon + 1]).mean() for run in chosen_on
                ]
                best = int(np.argmin(means))
                curve = reported[best][:, : horizon + 1]
                values = value_of(curve)
                print(
                    f"  {measure:20s} {name:9s} {mean_and_interval(values)}"
                    f"   at rate {RATES[best]:.4f}; learned - {name}: "
                    f"{mean_and_interval(own - values)}"
                )
                curves[f"{name}, rate {RATES[best]:.2g}"] = curve
            if measure != list(MEASURES)[-1]:
                # Drawn are the rates that are best in the end.
                curves.clear()
    return drawn


heading("3. Held-out quadratics, and what it was not trained for")
own_kind = quadratic_tasks(DIMENSIONS)
drawn = compare("10 dimensions", network, own_kind, [TRAINED_STEPS, LONGER])
drawn |= compare(
    "30 dimensions", linear(30), quadratic_tasks(30), [TRAINED_STEPS]
)
drawn |= compare(
    "a network on waves",
    keras_meta.backbones.mlp((1,), (20,), activation="tanh"),
    waves,
    [TRAINED_STEPS],
)

heading("4. A picture")
from matplotlib.figure import Figure  # noqa: E402

figure = Figure(figsize=(11, 8), layout="constrained")
for axis, (title, curves) in zip(figure.subplots(2, 2).flat, drawn.items()):
    for name, values in curves.items():
        own = name == "learned"
        axis.semilogy(
            values.mean(axis=0),
            label=name,
            color="black" if own else None,
            linewidth=2.5 if own else 1.2,
        )
    if title.endswith(f"{LONGER} steps"):
        axis.axvline(TRAINED_STEPS, color="0.6", linestyle=":")
    axis.set_ylim(top=2 * curves["learned"][:, 0].mean())
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("steps")
    axis.set_ylabel("mean squared error")
    axis.legend(fontsize=8)
picture_path = output / "learned_optimizer.png"
figure.savefig(picture_path, dpi=110)

heading("Done")
print(f"picture: {picture_path.resolve()}")
