import numpy as np
import pytest
import tensorflow as tf

import keras_meta


def image(generator, label):
    """A stroke at a place of its own for each class, and some noise."""
    pixels = generator.integers(0, 20, size=(21, 21, 1))
    pixels[label : label + 2] = 250
    return tf.io.encode_png(pixels.astype("uint8")).numpy()


def write_runs(path, runs=2, ways=20, seed=0):
    """Writes runs as the challenge has them; returns the answers."""
    generator = np.random.default_rng(seed)
    answers = []
    for run in range(1, runs + 1):
        name = f"run{run:02d}"
        for part in ("training", "test"):
            (path / name / part).mkdir(parents=True)
        order = generator.permutation(ways)
        lines = []
        for item, label in enumerate(order):
            training = f"{name}/training/class{label + 1:02d}.png"
            test = f"{name}/test/item{item + 1:02d}.png"
            (path / training).write_bytes(image(generator, label))
            (path / test).write_bytes(image(generator, label))
            lines.append(f"{test} {training}")
        (path / name / "class_labels.txt").write_text("\n".join(lines) + "\n")
        answers.append(order)
    return answers


def test_a_run_is_an_episode(tmp_path):
    answers = write_runs(tmp_path, runs=3)
    episodes = keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))
    assert episodes.cardinality() == 3
    for (x, y), answer in zip(episodes, answers, strict=True):
        assert x["support_x"].shape == (1, 20, 21, 21, 1)
        np.testing.assert_array_equal(x["support_y"], [np.arange(20)])
        np.testing.assert_array_equal(y, [answer])
        # Each stroke tells the class.
        rows = np.argmax(x["query_x"][0, :, :, 0, 0], axis=1)
        np.testing.assert_array_equal(rows, answer)
        assert np.max(x["support_x"]) <= 1


def test_scores_each_trial_on_its_own(tmp_path):
    write_runs(tmp_path)
    episodes = keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))
    pixels = keras_meta.PrototypicalNetwork(
        keras_meta.backbones.mlp((21, 21, 1), hidden_units=(), outputs=None)
    )
    result = keras_meta.evaluate_episodes(pixels, episodes)
    assert result.count == 2
    assert result.mean == 1

    def first_class(x):
        return tf.one_hot(tf.zeros(x["query_x"].shape[:2], "int32"), 20)

    # One class for all queries is right for one of twenty.
    assert keras_meta.evaluate_episodes(first_class, episodes).mean == 0.05


def test_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder for each run"):
        keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))
    write_runs(tmp_path)
    (tmp_path / "run02/test/item07.png").unlink()
    message = "Received: .*item07.png, which is missing, line 7 of .*run02"
    with pytest.raises(FileNotFoundError, match=message):
        keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "which is empty"),
        ("run01/test/item01.png", "line 1 of .*class_labels.txt"),
        (
            "run01/test/item01.png run01/test/item02.png",
            "training image of its run. Received: .*item02.png",
        ),
    ],
)
def test_refuses_lines_that_are_no_trials(tmp_path, text, message):
    write_runs(tmp_path, runs=1)
    (tmp_path / "run01/class_labels.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))


def test_reads_text_with_a_mark_and_refuses_other_encodings(tmp_path):
    answers = write_runs(tmp_path, runs=1)
    file = tmp_path / "run01/class_labels.txt"
    lines = file.read_text()
    file.write_text(lines, "utf-8-sig")
    (_, y), *_ = keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))
    np.testing.assert_array_equal(y, answers)
    file.write_text(lines, "utf-16")
    with pytest.raises(ValueError, match="UTF-8. Received: .*class_labels.txt"):
        keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store"])
def test_system_files_are_passed_over(tmp_path, name):
    write_runs(tmp_path, runs=1)
    (tmp_path / "run01/training" / name).write_bytes(b"no image")
    (x, _), *_ = keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))
    assert x["support_x"].shape[1] == 20


@pytest.mark.parametrize("image_size", [8, None, (8, 0), (8, 8, 1), "88"])
def test_refuses_image_sizes(tmp_path, image_size):
    write_runs(tmp_path, runs=1)
    with pytest.raises(ValueError, match="`image_size` must be.*Received: ima"):
        keras_meta.episodes.one_shot_runs(tmp_path, image_size)


def test_names_the_damaged_image(tmp_path):
    write_runs(tmp_path, runs=1)
    (tmp_path / "run01/training/class05.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="Received: .*class05.png"):
        keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))


def test_refuses_a_run_without_training_images(tmp_path):
    write_runs(tmp_path, runs=1)
    for file in (tmp_path / "run01/training").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="training, which is missing"):
        keras_meta.episodes.one_shot_runs(tmp_path, (21, 21))
