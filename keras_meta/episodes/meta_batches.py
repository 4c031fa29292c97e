import tensorflow as tf

from keras_meta import arguments


def meta_batches(make, meta_batch_size, episodes):
    """Returns a data set of meta-batches, made by number.

    Args:
        make: Function `(first_episode, count)` that returns a meta-batch:
            the episodes from number `first_episode` on.
        meta_batch_size: Integer, the episodes of a meta-batch.
        episodes: Integer, the number of episodes, the last meta-batch being
            smaller where it does not divide; or `None`, without end.

    Returns:
        A `tf.data.Dataset`.
    """
    if episodes is None:
        starts = tf.data.Dataset.counter(0, meta_batch_size)
        return _make_each(starts, make, meta_batch_size)
    # Whole meta-batches keep their static shape; only the rest is odd.
    rest = episodes % meta_batch_size
    starts = tf.data.Dataset.range(0, episodes - rest, meta_batch_size)
    dataset = _make_each(starts, make, meta_batch_size)
    if not rest:
        return dataset
    last = tf.data.Dataset.range(episodes - rest, episodes, meta_batch_size)
    last = _make_each(last, make, rest)
    return dataset.concatenate(last) if episodes > rest else last


def check_meta_batch_arguments(meta_batch_size, episodes, seed):
    """Checks the arguments that all episode data sets share."""
    arguments.check_positive_integer("meta_batch_size", meta_batch_size)
    if episodes is not None:
        arguments.check_positive_integer(
            "episodes", episodes, "Use `None` for endless episodes."
        )
    arguments.check_integer("seed", seed)


def _make_each(starts, make, count):
    # There is nothing in it for AutoGraph, which takes as long as the rest.
    make_from = tf.autograph.experimental.do_not_convert(
        lambda first_episode: make(first_episode, int(count))
    )
    dataset = starts.map(make_from, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)
