import numpy as np
import tensorflow as tf

from keras_meta import flat_states


def spec(shape, dtype="float32"):
    return tf.TensorSpec(shape, dtype)


def there_and_back(state, specs):
    """Flattens and unflattens in graphs that know no more than `specs`."""
    flatten = tf.function(
        lambda state: flat_states.flatten(state, "float32"),
        input_signature=[specs],
    )
    unflatten = tf.function(
        lambda flat: flat_states.unflatten(flat, specs),
        input_signature=[tf.TensorSpec([None, None])],
    )
    flat = flatten(state)
    tf.nest.map_structure(np.testing.assert_array_equal, unflatten(flat), state)
    return flat


def test_known_shapes_are_kept_without_their_sizes():
    specs = {"a": spec([None, 2, 3]), "b": spec([None], "bool")}
    state = {
        "a": tf.reshape(tf.range(24.0), [4, 2, 3]),
        "b": tf.constant([True, False, True, True]),
    }
    flat = there_and_back(state, specs)
    assert flat.shape == (4, 7) and flat_states.flat_size(specs) == 7
    np.testing.assert_array_equal(flat[1], [6, 7, 8, 9, 10, 11, 0])


def test_unknown_sizes_and_ranks_come_back():
    specs = (spec([None, None, 2]), spec(None), spec([None, 1], "int32"))
    assert flat_states.flat_size(specs) is None
    for sizes, shape in (((3,), ()), ((1,), (2,)), ((5,), (2, 3))):
        state = (
            tf.random.normal([2, *sizes, 2]),
            tf.random.normal([2, *shape]),
            tf.constant([[7], [8]]),
        )
        there_and_back(state, specs)


def test_texts_cannot_be_numbers():
    assert flat_states.can_be_flat([spec([None, 2])])
    assert not flat_states.can_be_flat([spec([None]), spec([None], "string")])
    assert not flat_states.can_be_flat({})
