"""This package, as its users have it: `compile()` and `fit()`."""

import time

import keras
import numpy as np
import tensorflow as tf

import keras_meta
from contestants import cases
from contestants import clock


def make(
    case,
    folder,
    steps_per_execution=1,
    jit_compile="auto",
    task_mapping="auto",
):
    model = make_model(case, task_mapping)
    model.compile(
        keras.optimizers.Adam(0.001),
        loss=make_loss(case),
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )
    if case["algorithm"] == "answer":
        return SavedModel(model, case, folder)
    return Fit(model, case, steps_per_execution)


def make_loss(case):
    if not cases.is_image(case):
        return keras.losses.MeanSquaredError()
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_model(case, task_mapping="auto"):
    width, outputs = case["width"], cases.outputs(case)
    if cases.is_image(case):
        network = keras_meta.backbones.conv4(outputs=outputs, filters=width)
    else:
        network = keras_meta.backbones.mlp(hidden_units=(width, width))
    for variable, value in zip(
        network.trainable_variables, cases.weights(case)
    ):
        variable.assign(value)
    if case["algorithm"] == "prototypical":
        return keras_meta.PrototypicalNetwork(network, ways=case["ways"])
    settings = {
        "inner_steps": case["inner_steps"],
        "inner_learning_rate": case["inner_learning_rate"],
        "task_mapping": task_mapping,
    }
    if case["algorithm"] == "reptile":
        return keras_meta.Reptile(
            network, batch_size=case["inner_batch"], **settings
        )
    if case["algorithm"] == "answer":
        # A single query has no statistics of its own.
        settings["normalization_statistics"] = "support"
    return keras_meta.MAML(network, first_order=case["first_order"], **settings)


class Clock(keras.callbacks.Callback):
    """Notes how long each epoch takes."""

    def on_train_begin(self, logs=None):
        self.durations = []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.durations.append(time.perf_counter() - self.started)


class Fit:
    def __init__(self, model, case, steps_per_execution):
        self.model = model
        self.granularity = steps_per_execution
        self.clock = Clock()
        data = cases.data(case)
        y = data.pop("query_y")
        batches = tf.data.Dataset.from_tensor_slices((data, y))
        self.first = batches.take(1)
        self.batches = batches.repeat()

    def check(self):
        history = self.model.fit(self.first, verbose=0)
        # The first momentum of Adam is a tenth of the gradient.
        gradients = [
            np.asarray(momentum) / 0.1
            for momentum in self.model.optimizer._momentums
        ]
        return history.history["loss"][0], gradients

    def run(self, steps, blocks):
        self.model.fit(
            self.batches,
            epochs=blocks,
            steps_per_epoch=steps,
            verbose=0,
            callbacks=[self.clock],
        )
        return self.clock.durations


class SavedModel:
    """Adapts to one task and answers one query, loaded in plain TensorFlow."""

    granularity = 1

    def __init__(self, model, case, folder):
        model.export(folder, verbose=False)
        # Its variables are there as long as it is.
        self.loaded = tf.saved_model.load(folder)
        data = cases.data(case)
        names = ("support_x", "support_y", "query_x")
        self.tasks = [
            [tf.constant(data[name][number]) for name in names]
            for number in range(cases.BATCHES)
        ]
        self.count = 0

    def check(self):
        return 0.0, [self.loaded.adapt_and_predict(*self.tasks[0]).numpy()[0]]

    def run(self, steps, blocks):
        return clock.durations(self.step, steps, blocks)

    def step(self):
        self.count += 1
        self.loaded.adapt_and_predict(
            *self.tasks[self.count % len(self.tasks)]
        ).numpy()
