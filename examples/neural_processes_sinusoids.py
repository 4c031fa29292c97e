"""
Title: Neural processes on sinusoids
Description: Regression from ten points, with a band that knows its own error.
Accelerator: None
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_meta

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="demo_output", type=pathlib.Path)
parser.add_argument("--steps", default=6000, type=int)
parser.add_argument("--test-episodes", default=600, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
started = time.time()


def heading(text):
    print(f"\n=== {text} ({time.time() - started:.0f} s)", flush=True)


"""
## Training

A task is a wave of its own amplitude and phase. The answer to a query is a
mean and a standard deviation; the loss is how unlikely the true value is under
them.
"""

training = keras_meta.episodes.sinusoids(shots=10, seed=arguments.seed)
models = {}
for number, kind in enumerate(
    (keras_meta.ConditionalNeuralProcess, keras_meta.AttentiveNeuralProcess)
):
    heading(f"{number + 1}. {kind.__name__}")
    keras.utils.set_random_seed(arguments.seed)
    model = kind(
        keras_meta.backbones.mlp((1,), (64,), outputs=None),
        outputs=1,
        regression=True,
    )
    rate = keras.optimizers.schedules.CosineDecay(0.001, arguments.steps)
    model.compile(
        keras.optimizers.Adam(rate),
        loss=keras_meta.losses.GaussianLikelihood(),
        metrics=[
            keras_meta.metrics.gaussian_mean_squared_error,
            keras_meta.metrics.gaussian_coverage,
        ],
        steps_per_execution=20,
    )
    model.fit(training, steps_per_epoch=max(20, arguments.steps // 3), epochs=3)
    models[kind.__name__] = model

"""
## How good are the answers, and do they know it?

Of the true values, 95 % should lie in the band of 1.96 standard deviations to
either side of the mean.
"""

heading("3. Waves never seen")
waves = keras_meta.episodes.sinusoids(
    shots=10,
    queries=100,
    meta_batch_size=50,
    episodes=arguments.test_episodes,
    seed=1000,
)
for name, model in models.items():
    error = keras_meta.evaluate_episodes(model, waves)
    coverage = keras_meta.evaluate_episodes(
        model, waves, keras_meta.metrics.gaussian_coverage
    )
    print(
        f"{name}: squared error {error.mean:.4f} ± {error.interval:.4f}, "
        f"in the band {coverage.mean:.1%} ± {coverage.interval:.1%}"
    )

"""
## A picture

With few points, and far from them, the band is wide.
"""

heading("4. A picture")
few = keras_meta.episodes.sinusoids(
    shots=3, queries=200, meta_batch_size=3, episodes=3, seed=7
)
figure = keras_meta.visualization.plot_regression(
    models["ConditionalNeuralProcess"], few, steps=(0,)
)
path = output / "neural_processes.png"
figure.savefig(path, dpi=110)
heading("Done")
print(f"picture: {path.resolve()}")
