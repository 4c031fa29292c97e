import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes

TASK = dict(ways=3, shots=1, queries=2)
LIST = dict(episodes=10, meta_batch_size=4)


def record(number):
    """A byte for the class, then an image; all of different lengths."""
    pixels = np.full(9, number, "uint8").tobytes()
    return bytes([number // 4]) + pixels + b"." * (number % 5)


def parse(record):
    values = tf.io.decode_raw(record, "uint8")
    image = tf.reshape(values[1:10], (3, 3, 1))
    return image, tf.cast(values[0], "int32")


def write_tfrecords(folder, numbers=range(24), parts=2):
    files = []
    for part, some in enumerate(np.array_split(list(numbers), parts)):
        files.append(str(folder / f"part{part}.tfrecord"))
        with tf.io.TFRecordWriter(files[-1]) as file:
            for number in some:
                file.write(record(int(number)))
    return files


def write_array_records(folder, parts=2):
    module = pytest.importorskip(
        "array_record.python.array_record_module",
        reason="needs the package array_record",
    )
    files = []
    for part, some in enumerate(np.array_split(np.arange(24), parts)):
        files.append(str(folder / f"part{part}.array_record"))
        writer = module.ArrayRecordWriter(files[-1], "group_size:1")
        for number in some:
            writer.write(record(int(number)))
        writer.close()
    return files


def in_memory(**settings):
    images = np.stack([np.full((3, 3, 1), n, "uint8") for n in range(24)])
    return episodes.from_arrays(
        images, np.arange(24) // 4, **TASK, **LIST, **settings
    )


def check_same(one, other):
    assert one.element_spec == other.element_spec
    for batch, expected in zip(one, other, strict=True):
        for leaf, other_leaf in zip(
            tf.nest.flatten(batch), tf.nest.flatten(expected), strict=True
        ):
            np.testing.assert_array_equal(leaf, other_leaf)


@pytest.mark.parametrize("write", [write_tfrecords, write_array_records])
def test_equals_the_same_examples_in_memory(tmp_path, write):
    files = write(tmp_path)
    check_same(episodes.from_records(files, parse, **TASK, **LIST), in_memory())
    settings = dict(quarter_turns=True, classes=[0, 1, 4])
    check_same(
        episodes.from_records(files, parse, **TASK, **LIST, **settings),
        in_memory(**settings),
    )


def test_files_may_be_named_by_a_pattern(tmp_path):
    write_tfrecords(tmp_path, parts=3)
    check_same(
        episodes.from_records(
            tmp_path / "part?.tfrecord", parse, **TASK, **LIST
        ),
        in_memory(),
    )


def test_only_what_an_episode_needs_is_read(tmp_path):
    (file,) = write_tfrecords(tmp_path, parts=1)
    dataset = episodes.from_records(
        file, parse, **TASK, classes=[0, 1, 2], **LIST
    )
    # The second half of the file holds the other classes.
    with open(file, "r+b") as content:
        content.seek(0, 2)
        half = content.tell() * 3 // 4
        content.seek(half)
        content.write(b"\xff" * 40)
    assert sum(1 for _ in dataset) == 3


def test_a_record_that_was_damaged_since_stops_the_run(tmp_path):
    (file,) = write_tfrecords(tmp_path, parts=1)
    dataset = episodes.from_records(file, parse, 6, 2, 2)
    content = bytearray(pathlib.Path(file).read_bytes())
    content[14] ^= 255
    pathlib.Path(file).write_bytes(content)
    with pytest.raises(tf.errors.DataLossError):
        next(iter(dataset))


def test_labels_spare_reading_the_records(tmp_path):
    files = write_tfrecords(tmp_path)
    # The labels of the records would be others.
    dataset = episodes.from_records(
        files, parse, **TASK, labels=np.arange(24) // 4 + 10, **LIST
    )
    check_same(dataset, in_memory())
    assert episodes.describe(dataset).classes == list(range(10, 16))


def test_groups_and_names(tmp_path):
    dataset = episodes.from_records(
        write_tfrecords(tmp_path),
        parse,
        **TASK,
        groups=[*"aaabbb"],
        class_names=[*"uvwxyz"],
        classes=["b"],
        within="group",
    )
    description = episodes.describe(dataset)
    assert description.classes == ["x", "y", "z"]
    assert description.groups == {"b": 3}
    assert description.source == "part0.tfrecord and 1 more"


def test_nested_examples(tmp_path):
    def parse_two(record):
        image, label = parse(record)
        return {"image": image, "mean": tf.reduce_mean(image)}, label

    dataset = episodes.from_records(
        write_tfrecords(tmp_path), parse_two, **TASK, **LIST
    )
    for (x, _), (expected, _) in zip(dataset, in_memory()):
        np.testing.assert_array_equal(
            x["query_x"]["image"], expected["query_x"]
        )
        # Bytes come out as floats from 0 to 1.
        np.testing.assert_allclose(
            x["query_x"]["mean"],
            np.asarray(expected["query_x"]).mean(axis=(2, 3, 4)),
            rtol=1e-6,
        )


def test_a_frozen_list_knows_changed_records(tmp_path):
    files = write_tfrecords(tmp_path)
    dataset = episodes.from_records(files, parse, **TASK, **LIST)
    episodes.freeze(dataset, tmp_path / "frozen.npz")
    check_same(
        episodes.load_frozen(tmp_path / "frozen.npz", dataset, 4), dataset
    )
    inverted = episodes.from_records(
        files,
        lambda record: (255 - parse(record)[0], parse(record)[1]),
        2,
        1,
        1,
    )
    with pytest.raises(ValueError, match="The data changed"):
        episodes.load_frozen(tmp_path / "frozen.npz", inverted)
    write_tfrecords(tmp_path, [*range(23), 22])
    changed = episodes.from_records(files, parse, 2, 1, 1)
    with pytest.raises(ValueError, match="The data changed"):
        episodes.load_frozen(tmp_path / "frozen.npz", changed)


@pytest.mark.parametrize("write", [write_tfrecords, write_array_records])
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_is_named(tmp_path, write, damage):
    files = write(tmp_path)
    path = pathlib.Path(files[1])
    content = path.read_bytes()
    if damage == "truncated":
        content = content[: len(content) // 2 - 3]
    else:
        # A pixel of the last record.
        place = content.rfind(bytes([23] * 9)) + 4
        content = content[:place] + b"\x00" + content[place + 1 :]
    path.write_bytes(content)
    name = re.escape(files[1])
    with pytest.raises(ValueError, match=f"{name}, which is damaged"):
        episodes.from_records(files, parse, **TASK)


def test_a_compressed_file_is_an_error(tmp_path):
    file = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(file, "GZIP") as writer:
        for number in range(24):
            writer.write(record(number))
    with pytest.raises(ValueError, match=r"\(not compressed\)"):
        episodes.from_records(file, parse, **TASK)


def test_files_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="where there is none"):
        episodes.from_records(tmp_path / "absent*", parse, **TASK)
    with pytest.raises(ValueError, match="an empty list"):
        episodes.from_records([], parse, **TASK)
    (tmp_path / "empty.tfrecord").touch()
    with pytest.raises(ValueError, match="which holds none, or is damaged"):
        episodes.from_records(tmp_path / "empty.tfrecord", parse, **TASK)


def test_a_file_that_is_named_twice_is_an_error(tmp_path):
    files = write_tfrecords(tmp_path)
    with pytest.raises(ValueError, match="part1.tfrecord'], named twice"):
        episodes.from_records(
            [tmp_path / "part*.tfrecord", files[1]], parse, **TASK
        )


def test_too_few_names_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="5 names for labels from 0 to 5"):
        episodes.from_records(
            write_tfrecords(tmp_path), parse, **TASK, class_names=[*"abcde"]
        )


def test_files_of_two_kinds_are_an_error(tmp_path):
    files = write_tfrecords(tmp_path)
    (tmp_path / "b.array_record").touch()
    with pytest.raises(ValueError, match="must be of one kind"):
        episodes.from_records(
            [*files, tmp_path / "b.array_record"], parse, **TASK
        )


@pytest.mark.parametrize(
    "wrong, match",
    [
        ("parse", "`parse` must be a function"),
        (lambda record: parse(record)[0], "must return a pair"),
        (lambda record: (*parse(record), 1), "must return a pair"),
        (lambda record: (parse(record)[0], 0.5), "its class, an integer"),
        (lambda record: parse(record)[::-1], "its class, an integer|single"),
        (
            lambda record: (parse(record)[0], parse(record)[1][None]),
            "must be a single integer",
        ),
        (
            lambda record: (tf.io.decode_raw(record, "uint8"), 1),
            "must return a pair|must have one shape",
        ),
        (
            lambda record: (
                tf.io.decode_raw(record, "uint8"),
                parse(record)[1],
            ),
            "must have one shape",
        ),
    ],
)
def test_a_function_that_parses_something_else_is_an_error(
    tmp_path, wrong, match
):
    with pytest.raises(TypeError, match=match):
        episodes.from_records(write_tfrecords(tmp_path), wrong, **TASK)


def test_labels_of_another_length_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="23 labels for 24 records"):
        episodes.from_records(
            write_tfrecords(tmp_path), parse, **TASK, labels=range(23)
        )
