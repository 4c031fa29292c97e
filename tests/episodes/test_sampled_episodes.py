import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes


def unread():
    """A data set whose examples nobody reads."""

    def fail(number):
        raise AssertionError("read")

    def read(number):
        x = tf.numpy_function(fail, [number], "float32")
        return tf.ensure_shape(x, [3]), tf.cast(number, "int32") % 5

    return tf.data.Dataset.range(50).map(read)


@pytest.mark.parametrize(
    "settings, error, match",
    [
        (dict(ways=0), ValueError, "`ways` must be an integer of 1"),
        (dict(shots=(3, 1)), ValueError, "`shots` must have the fewest"),
        (dict(within="alphabet"), ValueError, "`within` must be one of"),
        (dict(meta_batch_size=0), ValueError, "`meta_batch_size` must be"),
        (dict(mirrors="yes"), ValueError, "`mirrors` must be True or False"),
        (dict(augment_query="turn"), TypeError, "`augment_query` must be"),
        (dict(episode=5), TypeError, r"Received: \['episode'\]"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_read(settings, error, match):
    settings = dict(ways=2, shots=1, queries=1) | settings
    with pytest.raises(error, match=match):
        episodes.from_dataset(unread(), **settings)


def test_groups_of_a_source_that_has_its_own_are_an_error(tmp_path):
    with pytest.raises(TypeError, match="The groups come with this source"):
        episodes.from_directory(tmp_path, 2, 1, 1, groups=["a"])


@pytest.mark.parametrize("classes", [5, "cat"])
def test_classes_that_are_no_sequence_are_an_error(classes):
    with pytest.raises(TypeError, match="`classes` must be a sequence"):
        episodes.from_arrays(
            np.zeros((8, 2)), np.arange(8) // 2, 2, 1, 1, classes=classes
        )


def test_a_list_of_images_is_told_how_to_be_one_array():
    images = [np.zeros((4, 4))] * 8
    with pytest.raises(ValueError, match=r"np.stack\(x\)"):
        episodes.from_arrays(images, np.arange(8) // 2, 2, 1, 1)


def test_groups_with_gaps_are_an_error():
    with pytest.raises(ValueError, match="with None among them"):
        episodes.from_arrays(
            np.zeros((8, 2)),
            np.arange(8) // 4,
            2,
            1,
            1,
            groups=["a", None],
        )
