import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes
from keras_meta.episodes import image_variants


def by_numpy(image, number):
    """Turns to the left; the second four begin with the mirror image."""
    image = image[:, ::-1] if number >= 4 else image
    return np.rot90(image, number % 4)


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(
    "turns, mirrors, count",
    [(True, False, 4), (False, True, 2), (True, True, 8)],
)
def test_turns_and_mirrors_as_numpy_does(turns, mirrors, count, channels):
    images = np.random.default_rng(0).uniform(size=(2, 9, 5, 5, *channels))
    used = image_variants.choose(turns, mirrors)
    assert len(used) == count
    variants = np.arange(18).reshape(2, 9) % count
    turned = image_variants.turn(tf.constant(images), variants, used).numpy()
    for task in range(2):
        for place in range(9):
            np.testing.assert_array_equal(
                turned[task, place],
                by_numpy(images[task, place], used[variants[task, place]]),
            )


def test_mirrors_alone_may_be_of_any_shape():
    images = np.random.default_rng(0).uniform(size=(1, 2, 3, 5))
    turned = image_variants.turn(tf.constant(images), [[0, 1]], [0, 4]).numpy()
    np.testing.assert_array_equal(turned[0, 1], images[0, 1][:, ::-1])


def test_each_variant_is_a_class_of_its_own():
    # A single class, which becomes eight; the corners tell which is which.
    images = np.zeros((4, 4, 4, 1), "uint8")
    images[:, 0, 0], images[:, 0, 3] = 255, 51
    dataset = episodes.from_arrays(
        images,
        np.zeros(4, "int32"),
        ways=8,
        shots=1,
        queries=2,
        meta_batch_size=5,
        episodes=5,
        quarter_turns=True,
        mirrors=True,
    )
    x, y = next(iter(dataset))
    corners = [(0, 0), (0, 3), (3, 0), (3, 3)]
    for task in range(5):
        found = {}
        for part, labels in (
            (x["support_x"][task], x["support_y"][task]),
            (x["query_x"][task], y[task]),
        ):
            for image, label in zip(part.numpy()[..., 0], labels.numpy()):
                seen = tuple(float(image[corner]) for corner in corners)
                assert found.setdefault(int(label), seen) == seen
        assert len(set(found.values())) == 8


def test_what_is_no_image_is_an_error():
    x = np.zeros((8, 5))
    with pytest.raises(ValueError, match="Only images can be turned"):
        episodes.from_arrays(x, np.arange(8) // 4, 2, 1, 1, mirrors=True)
    with pytest.raises(ValueError, match="Only images can be turned"):
        episodes.from_arrays(
            {"a": np.zeros((8, 4, 4))}, np.arange(8) // 4, 2, 1, 1, mirrors=True
        )
    x = np.zeros((8, 4, 5, 1))
    with pytest.raises(ValueError, match="Only square images"):
        episodes.from_arrays(x, np.arange(8) // 4, 2, 1, 1, quarter_turns=True)
    with pytest.raises(ValueError, match="`mirrors` must be True or False"):
        episodes.from_arrays(x, np.arange(8) // 4, 2, 1, 1, mirrors="both")
