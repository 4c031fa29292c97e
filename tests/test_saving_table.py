"""What can be kept of each algorithm, and where it runs: the docs' table."""

import functools
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests import lite_files
from tests import small_models
from tests.algorithms import contract

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "saving.md"

SUPPORTS, QUERIES = 6, 12

# LiteRT lacks systems of linear equations.
ADAPTED_ELSEWHERE = {"RidgeHead"}

# To convert takes longer than all else; some of each kind tell soon enough.
CONVERTED = {
    "FineTuning",
    "MAML",
    "MatchingNetwork",
    "ProtoMAML",
    "PrototypicalNetwork",
    "Reptile",
    "SNAIL",
}


def support_of(x):
    return {key: x[key] for key in ("support_x", "support_y")}


@functools.lru_cache(maxsize=1)
def model_and_answers(algorithm):
    """Returns a trained model and what it answers; nothing changes it."""
    keras.utils.set_random_seed(0)
    model = small_models.make_model(algorithm)
    model.run_eagerly = True
    model.train_on_batch(*training_batch(algorithm))
    return model, model(contract.first_batch()[0]).numpy()


def training_data(algorithm):
    """Returns the data of a run of two epochs, and arguments of `fit()`."""
    if algorithm in small_models.PRETRAINED:
        data = keras_meta.episodes.examples(*contract.blobs(), batch_size=200)
        return data, {}
    data = contract.blob_episodes(1, shots=1, queries=1)
    return data, {"steps_per_epoch": 2}


def training_batch(algorithm):
    return next(iter(training_data(algorithm)[0]))


@functools.lru_cache(maxsize=1)
def exported(algorithm, folder):
    model, _ = model_and_answers(algorithm)
    model.export(folder / "exported", verbose=False)
    return tf.saved_model.load(folder / "exported").signatures


def check_keras_file(algorithm, folder):
    model, answers = model_and_answers(algorithm)
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    again = keras.saving.load_model(folder / "model.keras")
    x, _ = contract.first_batch()
    np.testing.assert_array_equal(loaded(x), answers)
    assert loaded.optimizer.iterations == 1
    for either in (loaded, again):
        either.run_eagerly = True
        either.train_on_batch(*training_batch(algorithm))
    assert_same_state(loaded, again)
    # That the two trained at all.
    assert np.any(loaded(x).numpy() != answers)


def assert_same_state(model, other):
    for one, another in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, another, err_msg=one.path)
    ones, others = model.optimizer.variables, other.optimizer.variables
    for one, another in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, another, err_msg=one.path)


class Stop(keras.callbacks.Callback):
    """Stops a run in the middle of its second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 1:
            raise KeyboardInterrupt


def check_resume(algorithm, folder):
    def run(model_seed, *callbacks):
        keras.utils.set_random_seed(model_seed)
        model = small_models.make_model(algorithm)
        # To trace a step takes longer than these few.
        model.run_eagerly = True
        tf.random.set_seed(0)
        data, arguments = training_data(algorithm)
        try:
            model.fit(
                data, epochs=2, callbacks=callbacks, verbose=0, **arguments
            )
        except KeyboardInterrupt:
            pass
        return model

    backup = functools.partial(keras.callbacks.BackupAndRestore, folder / "b")
    stopped = run(0, backup(), Stop())
    # A new process has other random weights to begin with.
    resumed = run(1, backup())
    whole = run(0, keras.callbacks.BackupAndRestore(folder / "w"))
    assert stopped.optimizer.iterations < whole.optimizer.iterations
    assert_same_state(resumed, whole)


def check_adapted_model(algorithm, folder):
    model, answers = model_and_answers(algorithm)
    x, _ = contract.first_batch()
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    adapted.save(folder / "adapted.keras")
    loaded = keras.saving.load_model(folder / "adapted.keras")
    queries = x["query_x"][0]
    np.testing.assert_array_equal(loaded(queries), adapted(queries))
    # Of logits, only their softmax is promised.
    np.testing.assert_allclose(
        keras.ops.softmax(loaded(queries)),
        keras.ops.softmax(answers[0]),
        atol=1e-5,
    )


def check_saved_model(algorithm, folder):
    x, _ = contract.first_batch()
    endpoint = exported(algorithm, folder)["adapt_and_predict"]
    (answer,) = endpoint(**x).values()
    _, answers = model_and_answers(algorithm)
    np.testing.assert_allclose(answer, answers, rtol=1e-5, atol=1e-5)


def check_two_steps(algorithm, folder):
    x, _ = contract.first_batch()
    signatures = exported(algorithm, folder)
    state = signatures["adapt"](**support_of(x))["task_state"]
    assert state.dtype == "float32" and state.shape[0] == 4
    _, answers = model_and_answers(algorithm)
    # Once adapted, a task answers as often as it is asked, and any number.
    for few in (slice(None), slice(3, 5)):
        (answer,) = signatures["predict"](
            task_state=state, query_x=x["query_x"][:, few]
        ).values()
        np.testing.assert_allclose(
            answer, answers[:, few], rtol=1e-5, atol=1e-5
        )


def check_device(algorithm, folder):
    model, answers = model_and_answers(algorithm)
    x, _ = contract.first_batch()
    path = folder / "learner.tflite"
    keras_meta.export_litert(model, path, supports=SUPPORTS, queries=QUERIES)
    x = {key: value[:1] for key, value in x.items()}
    state = lite_files.run(path, "adapt", **support_of(x))["task_state"]
    answer = lite_files.answer(
        path, "predict", task_state=state, query_x=x["query_x"]
    )
    np.testing.assert_allclose(answer[0], answers[0], rtol=1e-4, atol=1e-4)


def check_adapted_on_a_device(algorithm, folder):
    model, _ = model_and_answers(algorithm)
    x, _ = contract.first_batch()
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    path = folder / "adapted.tflite"
    keras_meta.export_litert(adapted, path, queries=QUERIES)
    queries = x["query_x"][0]
    answer = lite_files.answer(path, "predict", query_x=queries)
    np.testing.assert_allclose(answer, adapted(queries), rtol=1e-4, atol=1e-4)


COLUMNS = {
    "`.keras`": check_keras_file,
    "resume": check_resume,
    "adapted model": check_adapted_model,
    "SavedModel": check_saved_model,
    "two-step": check_two_steps,
    "LiteRT: adapts": check_device,
    "LiteRT: adapted": check_adapted_on_a_device,
}


def is_there(algorithm, column):
    return column != "LiteRT: adapts" or algorithm not in ADAPTED_ELSEWHERE


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Gives each algorithm a folder, so that its cells share what is made."""
    return functools.cache(tmp_path_factory.mktemp)


def cells():
    """Returns the cells, those of an algorithm together, which share files."""
    found = []
    for algorithm in small_models.SETTINGS:
        for column in COLUMNS:
            quick = not column.startswith("LiteRT") or algorithm in CONVERTED
            marks = () if quick else pytest.mark.slow
            found.append(pytest.param(algorithm, column, marks=marks))
    return found


@pytest.mark.parametrize("algorithm, column", cells())
def test_cell(algorithm, column, folders):
    check = COLUMNS[column]
    if is_there(algorithm, column):
        check(algorithm, folders(algorithm))
        return
    with pytest.raises(ValueError, match="must only have operations of LiteRT"):
        check(algorithm, folders(algorithm))


def test_table_of_the_docs_says_the_same():
    rows = re.findall(r"^\| *`(\w+)` *\| (.*) \|$", PAGE.read_text(), re.M)
    told = {
        algorithm: [cell.strip() for cell in cells.split("|")]
        for algorithm, cells in rows
        if algorithm in small_models.SETTINGS
    }
    assert told == {
        algorithm: [
            "yes" if is_there(algorithm, column) else "no" for column in COLUMNS
        ]
        for algorithm in small_models.SETTINGS
    }
    heading = " | ".join(["algorithm", *COLUMNS])
    assert f"\n| {heading} |\n" in PAGE.read_text()


def test_every_algorithm_is_in_the_table():
    algorithms = {
        name
        for name, value in vars(keras_meta).items()
        if isinstance(value, type)
        and issubclass(value, keras_meta.EpisodicModel)
        and value is not keras_meta.EpisodicModel
    }
    assert set(small_models.SETTINGS) == algorithms
