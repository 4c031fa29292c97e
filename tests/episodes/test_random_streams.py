"""Philox, written out here in NumPy, is what the streams are held against."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_meta.episodes import random_streams

DRAWS = [random_streams.uniform, random_streams.integers]
WORD = 0xFFFFFFFF


def philox_4x32(seed, counters):
    """Philox4x32-10 of Salmon et al. (2011), table 2 and section 3.3.

    Returns uint32 `[counters, 4]`.
    """
    counters = np.asarray(counters, "uint64")
    state = [counters & WORD, counters >> np.uint64(32)]
    state += [np.zeros_like(counters), np.zeros_like(counters)]
    key = [seed % 2**64 & WORD, seed % 2**64 >> 32]
    for _ in range(10):
        first = np.uint64(0xD2511F53) * state[0]
        second = np.uint64(0xCD9E8D57) * state[2]
        state = [
            second >> np.uint64(32) ^ state[1] ^ np.uint64(key[0]),
            second & WORD,
            first >> np.uint64(32) ^ state[3] ^ np.uint64(key[1]),
            first & WORD,
        ]
        key = [(key[0] + 0x9E3779B9) & WORD, (key[1] + 0xBB67AE85) & WORD]
    return np.stack(state, axis=-1).astype("uint32")


def reference_rows(seed, first_episode, episodes, length):
    """Every episode has a stretch of whole counts of its own."""
    counts = math.ceil(length / 4)
    start = first_episode * counts
    counters = np.arange(start, start + episodes * counts, dtype="uint64")
    words = philox_4x32(seed, counters).reshape(episodes, counts * 4)
    return words[:, :length]


def kolmogorov_smirnov(values):
    """Distance of samples from the uniform distribution on [0, 1]."""
    values = np.sort(np.ravel(values).astype("float64"))
    steps = np.arange(len(values) + 1) / len(values)
    return max(np.max(steps[1:] - values), np.max(values - steps[:-1]))


def test_first_count_is_the_published_known_answer():
    # From the file `kat_vectors` of Random123: counter 0, key 0.
    known = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], "uint32")
    row = random_streams.integers(0, 0, 1, 4).numpy()
    assert np.array_equal(row.view("uint32")[0], known)


@pytest.mark.parametrize("length", [1, 4, 7, 30])
def test_integers_equal_philox(length):
    for seed in (0, 1, -1, 2**40 + 3, -(2**63), 2**64 - 2):
        for first in (0, 5, 2**33 + 1):
            rows = random_streams.integers(seed, first, 6, length)
            assert rows.dtype == tf.int32
            expected = reference_rows(seed, first, 6, length)
            assert np.array_equal(rows.numpy().view("uint32"), expected)


@pytest.mark.parametrize("length", [1, 4, 7, 30])
def test_uniform_numbers_equal_philox(length):
    for seed in (0, -1, 2**40 + 3):
        rows = random_streams.uniform(seed, 3, 5, length)
        assert rows.dtype == tf.float32
        # The low 23 bits are the mantissa.
        words = reference_rows(seed, 3, 5, length) & 0x7FFFFF
        assert np.array_equal(rows, (words / 2**23).astype("float32"))


@pytest.mark.parametrize("draw", DRAWS)
def test_a_row_does_not_depend_on_the_batch_it_is_drawn_in(draw):
    for length in (3, 8, 21):
        together = draw(7, 0, 12, length).numpy()
        alone = [draw(7, n, 1, length).numpy() for n in range(12)]
        assert np.array_equal(together, np.concatenate(alone))
        assert np.array_equal(together[4:9], draw(7, 4, 5, length))


def test_no_two_episodes_share_numbers():
    rows = random_streams.integers(0, 0, 500, 9).numpy()
    # 4,500 numbers of 32 bits: chance alone gives 0.002 pairs.
    assert len(np.unique(rows)) == rows.size


@pytest.mark.parametrize("draw", DRAWS)
def test_drawing_in_a_graph_gives_the_same_rows(draw):
    @tf.function
    def in_graph(first_episode, episodes):
        rows = draw(11, first_episode, episodes, 5)
        assert rows.shape.as_list() == [None, 5]
        return rows

    rows = in_graph(tf.constant(3, "int64"), tf.constant(4))
    assert np.array_equal(rows, draw(11, 3, 4, 5))


@pytest.mark.parametrize("draw", DRAWS)
def test_rows_have_a_static_shape_where_the_count_is_known(draw):
    @tf.function
    def in_graph(first_episode):
        rows = draw(11, first_episode, 4, 5)
        assert rows.shape.as_list() == [4, 5]
        return rows

    in_graph(tf.constant(0, "int64"))


def test_uniform_numbers_are_uniform():
    numbers = random_streams.uniform(0, 0, 4000, 25).numpy()
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    count = numbers.size
    assert abs(numbers.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / count)
    # The variance of (u - 1/2)^2 is 1/180.
    variance = np.mean((numbers.astype("float64") - 0.5) ** 2)
    assert abs(variance - 1 / 12) < 4 * np.sqrt(1 / 180 / count)
    assert kolmogorov_smirnov(numbers) < 2.23 / np.sqrt(count)


def test_every_column_is_uniform_over_the_episodes():
    numbers = random_streams.uniform(5, 0, 4000, 6).numpy()
    for column in numbers.T:
        assert kolmogorov_smirnov(column) < 2.23 / np.sqrt(len(column))


def test_integers_are_uniform_over_all_of_int32():
    numbers = random_streams.integers(2, 0, 4000, 25).numpy()
    shifted = numbers.astype("float64") + 2**31
    assert kolmogorov_smirnov(shifted / 2**32) < 2.23 / np.sqrt(numbers.size)
    bits = numbers.view("uint32")[..., None] >> np.arange(32, dtype="uint32")
    shares = np.mean(bits & 1, axis=(0, 1))
    assert np.all(np.abs(shares - 0.5) < 5 * 0.5 / np.sqrt(numbers.size))


def test_neighboring_episodes_are_not_correlated():
    numbers = random_streams.uniform(0, 0, 2000, 10).numpy()
    for lag in (1, 2, 7):
        one, other = numbers[:-lag].ravel(), numbers[lag:].ravel()
        correlation = np.corrcoef(one, other)[0, 1]
        assert abs(correlation) < 4 / np.sqrt(len(one))


def test_numbers_of_one_episode_are_not_correlated():
    numbers = random_streams.uniform(0, 0, 10000, 8).numpy()
    correlations = np.corrcoef(numbers.T) - np.eye(8)
    assert np.max(np.abs(correlations)) < 4.5 / np.sqrt(len(numbers))


def test_every_seed_is_a_stream_of_its_own():
    seeds = [0, 1, -1, 3, 3 + 2**32, 2**62, 2**63, -(2**63) + 1]
    rows = [
        random_streams.uniform(seed, 0, 1000, 10).numpy().ravel()
        for seed in seeds
    ]
    correlations = np.corrcoef(rows) - np.eye(len(seeds))
    assert np.max(np.abs(correlations)) < 4.5 / np.sqrt(len(rows[0]))


def test_a_seed_of_any_size_works():
    for seed in (2**64, 2**100 + 1, -(2**70)):
        rows = random_streams.uniform(seed, 0, 3, 5).numpy()
        assert np.array_equal(rows, random_streams.uniform(seed, 0, 3, 5))
        assert len(np.unique(rows)) == rows.size
