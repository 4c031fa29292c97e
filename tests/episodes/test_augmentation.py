import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes

IMAGES = np.random.default_rng(0).uniform(size=(20, 8, 8, 1)).astype("float32")
LABELS = np.arange(20) // 4


def drawn(meta_batch_size=3, **settings):
    dataset = episodes.from_arrays(
        IMAGES,
        LABELS,
        ways=3,
        shots=1,
        queries=2,
        meta_batch_size=meta_batch_size,
        **{"episodes": 6, **settings},
    )
    parts = [(x["support_x"], x["query_x"]) for x, _ in dataset]
    return [np.concatenate(leaves) for leaves in zip(*parts)]


@pytest.mark.parametrize("part", ["support", "query"])
def test_only_the_part_that_is_named_changes(part):
    layer = keras.layers.RandomTranslation(0.3, 0.3)
    plain = drawn()
    found = drawn(**{f"augment_{part}": layer})
    changed = [not np.array_equal(*pair) for pair in zip(plain, found)]
    assert changed == [part == "support", part == "query"]


def test_an_augmented_episode_is_the_same_in_any_meta_batch():
    layer = keras.Sequential(
        [
            keras.layers.RandomRotation(0.2),
            keras.layers.RandomBrightness(0.3, value_range=(0, 1)),
        ]
    )
    settings = dict(augment_support=layer, augment_query=layer)
    expected = drawn(**settings)
    for size in (1, 4, 6):
        found = drawn(size, **settings)
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, atol=1e-6)
    later = drawn(2, first_episode=4, episodes=2, **settings)
    for one, other in zip(later, expected):
        np.testing.assert_allclose(one, other[4:], atol=1e-6)


def test_each_episode_and_part_has_random_numbers_of_its_own():
    layer = keras.layers.RandomBrightness(0.5, value_range=(0, 1))
    plain = drawn()
    found = drawn(augment_support=layer, augment_query=layer)
    shifts = []
    for one, other in zip(plain, found):
        # What is not cut off at the ends of the range was moved alike.
        inside = (other > 0) & (other < 1)
        for task in range(6):
            for place in range(one.shape[1]):
                kept = inside[task, place]
                moved = (other - one)[task, place][kept]
                assert np.ptp(moved) < 1e-5
                shifts.append(np.round(moved.mean(), 5))
    assert len(set(shifts)) > 45


def test_the_seed_of_a_layer_and_its_use_elsewhere_change_nothing():
    layer = keras.layers.RandomRotation(0.2, seed=1)
    expected = drawn(augment_query=layer)
    layer(IMAGES, training=True)
    found = drawn(augment_query=keras.layers.RandomRotation(0.2, seed=2))
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_layer_may_change_the_size():
    crop = keras.layers.RandomCrop(5, 6)
    found = drawn(augment_support=crop, augment_query=crop)
    assert [part.shape[2:] for part in found] == [(5, 6, 1)] * 2


def test_a_function_is_called_with_the_images_of_a_task():
    seen = []

    def invert(images):
        seen.append(images.shape)
        return 1.0 - images

    plain, inverted = drawn(), drawn(augment_query=invert)
    np.testing.assert_allclose(inverted[1], 1.0 - plain[1], atol=1e-6)
    assert seen[0] == (6, 8, 8, 1)


def test_uint8_is_converted_first():
    dataset = episodes.from_arrays(
        (IMAGES * 255).astype("uint8"),
        LABELS,
        3,
        1,
        2,
        augment_query=lambda images: tf.ensure_shape(
            tf.cast(images.dtype == tf.float32, "float32") + 0 * images,
            images.shape,
        ),
    )
    x, _ = next(iter(dataset))
    assert np.all(x["query_x"].numpy() == 1.0)


def test_layers_of_the_range_to_255_are_an_error_for_uint8():
    jitter = keras.Sequential([keras.layers.RandomBrightness(0.2)])
    with pytest.raises(ValueError, match="value_range=\\(0, 1\\)"):
        episodes.from_arrays(
            (IMAGES * 255).astype("uint8"),
            LABELS,
            3,
            1,
            2,
            augment_support=jitter,
        )


class LateNoise(keras.layers.Layer):
    """Makes its generator when it is built."""

    def build(self, shape):
        self.generator = keras.random.SeedGenerator(3)
        super().build(shape)

    def call(self, images, training=False):
        return images + keras.random.normal(images.shape, seed=self.generator)


def test_a_generator_that_is_made_late_is_found():
    layer = LateNoise()
    settings = dict(augment_query=layer)
    expected = drawn(**settings)[1]
    np.testing.assert_array_equal(drawn(2, **settings)[1], expected)


def test_what_cannot_be_called_is_an_error():
    with pytest.raises(TypeError, match="`augment_query` must be a Keras"):
        drawn(augment_query="rotate")
