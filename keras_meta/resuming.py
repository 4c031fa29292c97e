"""Data that go on where a run of `fit()` was stopped.

Keras restores weights and the number of the epoch, and begins every data set
anew: a run that was stopped would see its first episodes once more, and never
those that it has missed.
"""

import keras
import tensorflow as tf


def continued(model, given):
    """Makes `fit()` go on with the data that an unstopped run would see.

    Epoch n of a data set, counted from 0, begins with its batch number
    `n * steps_per_epoch`, whichever run takes it; where there is no
    `steps_per_epoch`, with the shuffle number n of the whole data set.

    Args:
        model: The model that is trained.
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
    restores = any(
        isinstance(callback, keras.callbacks.BackupAndRestore)
        for callback in each
    )
    # Without these no data set begins but at its beginning.
    if not restores and not given.get("initial_epoch"):
        return given
    continuation = _Continuation(model, given)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(continuation)
    else:
        callbacks = [*each, continuation]
    return {**given, "x": continuation.dataset, "callbacks": callbacks}


class _Continuation(keras.callbacks.Callback):
    """Sets where the data begin, once all other callbacks have begun.

    One of them may restore the epoch; data are not read before.
    """

    def __init__(self, model, given):
        super().__init__()
        self._trained = model
        self._initial_epoch = given.get("initial_epoch") or 0
        self._steps = given.get("steps_per_epoch")
        self.dataset = self._given = given["x"]
        if self._steps is not None:
            self._first = tf.Variable(0, trainable=False, dtype="int64")
            self.dataset = tf.data.Dataset.from_tensors(0).flat_map(
                lambda _: _from_batch(self._given, self._first)
            )

    def on_train_begin(self, logs=None):
        epoch = self._trained._initial_epoch or self._initial_epoch
        if self._steps is not None:
            self._first.assign(epoch * self._steps)
            return
        # To begin to read it is what moves a data set to its next shuffle.
        for _ in range(epoch):
            next(iter(self._given), None)


def _from_batch(dataset, number):
    """Returns a data set from its batch `number` on."""
    origin = getattr(dataset, "keras_meta_origin", None)
    if origin is None or origin.episodes is not None:
        return dataset.skip(number)
    # What is made by number need not be made to be left out.
    return origin.from_meta_batch(number)
