"""Data that go on where a run of `fit()` was stopped.

Keras restores weights and the number of the epoch, and begins every data set
anew: a run that was stopped would see its first episodes once more, and never
those that it has missed.
"""

import keras
import tensorflow as tf


def continued(given):
    """Makes `fit()` go on with the data that an unstopped run would see.

    With `steps_per_epoch`, epoch n of a data set, counted from 0, begins with
    its batch number `n * steps_per_epoch`, whichever run takes it. Without,
    an epoch is the whole data set; where it is shuffled by this package, that
    depends on n.

    Args:
        given: Dictionary of the arguments of `fit()`; `x` is a
            `tf.data.Dataset`.

    Returns:
        The arguments to call `fit()` with.
    """
    callbacks = given.get("callbacks")
    if isinstance(callbacks, keras.callbacks.CallbackList):
        each = callbacks.callbacks
    else:
        each = keras.tree.flatten(callbacks) if callbacks else []
    # Without these no data set begins but at its beginning.
    restores = any(
        isinstance(callback, keras.callbacks.BackupAndRestore)
        for callback in each
    )
    if not restores and not given.get("initial_epoch"):
        return given
    steps = given.get("steps_per_epoch")
    if steps is not None:
        begin = _from_batch
    elif hasattr(given["x"], "keras_meta_of_epoch"):
        steps, begin = 1, _of_epoch
    else:
        return given
    first = tf.Variable(0, trainable=False, dtype="int64")
    # There is nothing in it for AutoGraph.
    begin_at_first = tf.autograph.experimental.do_not_convert(
        lambda _: begin(given["x"], first)
    )
    dataset = tf.data.Dataset.from_tensors(0).flat_map(begin_at_first)
    # Those of what a function makes do not count.
    dataset = dataset.with_options(given["x"].options())
    if begin is _of_epoch:
        count = given["x"].cardinality()
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    continuation = _Continuation(first, steps)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(continuation)
    else:
        callbacks = [*each, continuation]
    return {**given, "x": dataset, "callbacks": callbacks}


class _Continuation(keras.callbacks.Callback):
    """Tells a data set where to begin, should it begin with an epoch.

    Of those of one run only the first is told by a callback that restores it.
    """

    def __init__(self, first, steps):
        super().__init__()
        self._first = first
        self._steps = steps

    def on_epoch_begin(self, epoch, logs=None):
        self._first.assign(epoch * self._steps)


def _of_epoch(dataset, number):
    return dataset.keras_meta_of_epoch(number)


def _from_batch(dataset, number):
    """Returns a data set from its batch `number` on."""
    origin = getattr(dataset, "keras_meta_origin", None)
    if origin is None or origin.episodes is not None:
        return dataset.skip(number)
    # What is made by number need not be made to be left out.
    return origin.from_meta_batch(number)
