"""Random numbers that belong to an episode, not to a call.

Philox is a random generator without state: number n of a stream can be had
without the n - 1 before it. Episode n reads its own stretch of the stream of
a seed, so that it is the same in any meta-batch, process and order.
"""

import tensorflow as tf

_PHILOX = 1
# One count of Philox gives four numbers of 32 bits.
_NUMBERS_PER_COUNT = 4


def uniform(seed, first_episode, episodes, length):
    """Returns numbers uniform in [0, 1), a row for each episode.

    Args:
        seed: Integer, which stream.
        first_episode: Integer tensor, the number of the first episode.
        episodes: Integer tensor, how many episodes.
        length: Integer, how many numbers each episode needs.

    Returns:
        Float tensor `[episodes, length]`.
    """
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        **_stretch(seed, first_episode, episodes, length), dtype="float32"
    )
    return _rows(numbers, episodes, length)


def integers(seed, first_episode, episodes, length, stream=0):
    """Returns integers uniform over all of int32; see `uniform()`.

    Args:
        stream: Integer from 0. Streams of one seed have nothing in common.
    """
    numbers = tf.raw_ops.StatelessRandomUniformFullIntV2(
        **_stretch(seed, first_episode, episodes, length, stream),
        dtype="int32",
    )
    return _rows(numbers, episodes, length)


def _stretch(seed, first_episode, episodes, length, stream=0):
    counts = -(-int(length) // _NUMBERS_PER_COUNT)
    # Two's complement: negative seeds are streams of their own.
    key = tf.constant([int(seed) % 2**64], "uint64")
    counter = tf.stack(
        [
            tf.cast(first_episode, "uint64") * tf.constant(counts, "uint64"),
            tf.constant(stream, "uint64"),
        ]
    )
    shape = tf.stack([tf.cast(episodes, "int32"), counts * _NUMBERS_PER_COUNT])
    return {"shape": shape, "key": key, "counter": counter, "alg": _PHILOX}


def _rows(numbers, episodes, length):
    count = tf.get_static_value(tf.convert_to_tensor(episodes))
    numbers = numbers[:, :length]
    numbers.set_shape([None if count is None else int(count), length])
    return numbers
