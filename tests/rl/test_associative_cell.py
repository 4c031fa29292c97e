import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
import keras_meta.rl

ROWS, SEEN = 3, 5


def make_cell(**settings):
    keras.utils.set_random_seed(0)
    settings = {"units": 6, "heads": 2, "keys": 4, "values": 3, **settings}
    cell = keras_meta.rl.AssociativeCell(**settings)
    cell.build((None, SEEN))
    for weight in cell.weights:
        weight.assign(np.random.normal(size=weight.shape))
    return cell


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def by_hand(cell, x, last, memory):
    """Takes a step in one row; returns its output and its states."""
    kept, *weights = cell.get_weights()
    keys, written, share, hidden = zip(weights[::2], weights[1::2])
    seen = np.concatenate([x, last])
    write, read = np.split((seen @ keys[0] + keys[1]).reshape(4, 4), 2)
    write, read = ([softmax(2 * key) for key in some] for some in (write, read))
    memory = memory.reshape(2, 4, 3).copy()
    there = [key @ places for key, places in zip(write, memory)]
    value, factor = np.split(seen @ written[0] + written[1], 2)
    value = (value * (1 + factor)).reshape(2, 3)
    share = np.concatenate([seen, *there]) @ share[0] + share[1]
    share = (1 / (1 + np.exp(-share))).reshape(2, 3)
    for head in range(2):
        change = share[head] * (value[head] - there[head])
        memory[head] += np.outer(write[head], change)
    found = [key @ places for key, places in zip(read, memory)]
    output = np.concatenate([seen, *found]) @ hidden[0] + hidden[1]
    return np.maximum(output, 0), x @ kept, memory.reshape(-1)


def test_a_step_is_that_of_the_formula():
    cell = make_cell()
    numbers = np.random.default_rng(0)
    x, last, memory = (
        numbers.normal(size=(ROWS, size)).astype("float32")
        for size in (SEEN, 6, 24)
    )
    output, (kept, after) = cell(x, [last, memory])
    for row in range(ROWS):
        expected = by_hand(cell, x[row], last[row], memory[row])
        for one, other in zip((output, kept, after), expected, strict=True):
            np.testing.assert_allclose(one[row], other, atol=1e-4)


def test_it_serves_in_a_layer_of_keras_and_is_kept_in_a_file(tmp_path):
    model = keras.Sequential(
        [keras.Input((7, SEEN)), keras.layers.RNN(make_cell())]
    )
    x = np.random.default_rng(0).normal(size=(ROWS, 7, SEEN))
    x = x.astype("float32")
    state = [np.zeros((ROWS, 6), "float32"), np.zeros((ROWS, 24), "float32")]
    for step in range(7):
        output, state = model.layers[0].cell(x[:, step], state)
    np.testing.assert_allclose(model(x), output, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


def test_it_learns_a_table_that_is_shown_once():
    # A row of pairs, and then one of the keys again: what was its value?
    numbers = np.random.default_rng(0)

    def batch(rows=200, pairs=4):
        keys = np.argsort(numbers.random((rows, pairs)), axis=1)
        values = numbers.choice([-1.0, 1.0], size=(rows, pairs))
        asked = numbers.integers(pairs, size=rows)
        every = np.arange(rows)
        x = np.zeros((rows, pairs + 1, pairs + 1), "float32")
        x[:, :-1, :-1] = np.eye(pairs)[keys]
        x[:, :-1, -1] = values
        x[every, -1, keys[every, asked]] = 1.0
        return x, values[every, asked].astype("float32")

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5, 5)),
            keras.layers.RNN(keras_meta.rl.AssociativeCell(16)),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), loss="mse")
    data = tf.data.Dataset.from_generator(
        lambda: iter(batch, None),
        output_signature=(
            tf.TensorSpec([200, 5, 5], tf.float32),
            tf.TensorSpec([200], tf.float32),
        ),
    )
    model.fit(data, steps_per_epoch=150, shuffle=False, verbose=0)
    # To guess is wrong by 1.
    assert model.evaluate(*batch(1000), verbose=0) < 0.2


def test_a_memory_stays_within_what_is_written():
    # However long a trial, and whatever the weights.
    cell = make_cell()
    x = np.random.default_rng(0).normal(size=(ROWS, SEEN)).astype("float32")
    state = [np.zeros((ROWS, 6), "float32"), np.zeros((ROWS, 24), "float32")]
    largest = []
    for _ in range(300):
        _, state = cell(x, state)
        largest.append(np.abs(state[1]).max())
    assert max(largest[100:]) <= 1.01 * max(largest[:100])


@pytest.mark.parametrize("name", ["units", "heads", "keys", "values"])
def test_refuses_sizes_below_one(name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        make_cell(**{name: 0})
