import subprocess
import sys
import textwrap

import keras
import pytest
import tensorflow as tf

import keras_meta
from tests import small_models
from tests.algorithms import contract

PROGRAM = """
    import os
    import signal
    import sys

    import keras
    import numpy as np
    import tensorflow as tf

    import keras_meta

    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == 2 and batch == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    def run(folder, *callbacks):
        inputs = keras.Input((1,))
        hidden = keras.layers.Dense(8, activation="relu")(inputs)
        hidden = keras.layers.Dropout(0.5)(hidden)
        network = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        model = keras_meta.MAML(network, task_mapping="sequential")
        model.compile("adam", loss="mse")
        model.fit(
            keras_meta.episodes.sinusoids(meta_batch_size=2),
            epochs=4,
            steps_per_epoch=3,
            callbacks=[keras.callbacks.BackupAndRestore(folder), *callbacks],
            verbose=0,
        )
        return [*model.variables, *model.optimizer.variables]

    folder, other, what = sys.argv[1:]
    if what == "be killed":
        run(folder, Kill())
    # The seed is that of the first process, which began with these weights.
    whole = run(other)
    keras.utils.set_random_seed(1)
    resumed = run(folder)
    for one, another in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, another, err_msg=one.path)
    """


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    def run(what):
        program = textwrap.dedent(PROGRAM)
        arguments = [tmp_path / "one", tmp_path / "other", what]
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command).returncode

    assert run("be killed") == -9
    assert (tmp_path / "one").exists() and not (tmp_path / "other").exists()
    assert run("go on") == 0


class Seen(keras.callbacks.Callback):
    """Remembers the data that a model is trained on."""

    def __init__(self, model, stop_at=None):
        super().__init__()
        self.batches = []
        self.stop_at = stop_at
        train_step = model.train_step

        def remember(data):
            seen = data[1]
            if isinstance(data[0], dict):
                # The labels of all episodes are the same.
                seen = data[0]["query_x"]
            self.batches.append(seen.numpy().ravel().tolist())
            return train_step(data)

        model.train_step = remember

    def on_train_batch_begin(self, batch, logs=None):
        if len(self.batches) == self.stop_at:
            raise KeyboardInterrupt


def fit(data, folder=None, stop_at=None, **arguments):
    """Returns the labels of the batches of a run."""
    model = small_models.make_model("FineTuning")
    if arguments.pop("episodes", True):
        model = small_models.make_model("PrototypicalNetwork")
    model.run_eagerly = True
    callbacks = [Seen(model, stop_at)]
    if folder is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(folder))
    try:
        model.fit(data, callbacks=callbacks, verbose=0, **arguments)
    except KeyboardInterrupt:
        pass
    return callbacks[0].batches


def endless(**settings):
    return contract.blob_episodes(2, shots=1, queries=1, **settings)


def changed(dataset):
    return dataset.map(lambda x, y: (x, y))


@pytest.mark.parametrize(
    "data",
    [
        endless(),
        endless(first_episode=10, shard=(1, 3)),
        changed(endless()),
        endless(episodes=40),
    ],
    ids=["endless", "shard", "changed", "list"],
)
def test_episodes_go_on_where_they_were(data, tmp_path):
    run = dict(epochs=3, steps_per_epoch=2)
    whole = fit(data, **run)
    assert len({str(batch) for batch in whole}) == 6
    stopped = fit(data, tmp_path, stop_at=5, **run)
    assert stopped == whole[:5]
    # The epoch that was not finished is taken again.
    assert fit(data, tmp_path, **run) == whole[4:]
    # And so it is where a loaded model is told what it has behind it.
    assert fit(data, initial_epoch=1, **run) == whole[2:]


def test_examples_are_shuffled_by_the_epoch(tmp_path):
    def examples():
        return keras_meta.episodes.examples(*contract.blobs(), batch_size=200)

    run = dict(epochs=3, episodes=False)
    whole = fit(examples(), tmp_path / "whole", **run)
    assert len({str(batch) for batch in whole}) == 6
    for epoch in range(3):
        both = whole[2 * epoch] + whole[2 * epoch + 1]
        assert sorted(both) == sorted(contract.blobs()[1])
    fit(examples(), tmp_path / "stopped", stop_at=3, **run)
    # Whatever the random numbers of the new process are.
    tf.random.set_seed(5)
    assert fit(examples(), tmp_path / "stopped", **run) == whole[2:]


def test_other_data_are_left_to_keras():
    x, y = contract.first_batch()
    data = tf.data.Dataset.from_tensors((x, y)).repeat(2)
    assert len(fit(data, epochs=3, initial_epoch=1)) == 4
