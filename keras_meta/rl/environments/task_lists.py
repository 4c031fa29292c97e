import numpy as np
import tensorflow as tf

from keras_meta.rl.environments.task_family import SPLITS


class TaskLists:
    """Draws tasks from lists, each task once before any is drawn again.

    Args:
        lists: Dictionary of lists of tasks, with the keys `"train"`, `"test"`
            and, if wanted, `"validation"`. A task is a number, an array, or a
            dictionary of these.

    Raises:
        TypeError: Where `lists` is no dictionary.
        ValueError: Where a list is missing or empty, tasks differ in their
            parts or shapes, or a task is in two lists.
    """

    def __init__(self, lists):
        if not isinstance(lists, dict):
            raise TypeError(
                "`tasks` must be a function, or a dictionary of lists of "
                f"tasks. Received: tasks={lists!r}."
            )
        sizes = {split: len(tasks) for split, tasks in lists.items()}
        known = {"train", "test"} <= set(sizes) <= set(SPLITS)
        if not known or not all(sizes.values()):
            raise ValueError(
                "`tasks` must have the keys 'train' and 'test', and may have "
                "'validation', each with a list of one task or more. Received: "
                f"lists of {sizes} tasks."
            )
        self._sizes = sizes
        every = [task for tasks in lists.values() for task in tasks]
        owners = [split for split, size in sizes.items() for _ in range(size)]
        stacked = _stacked(every)
        _check_apart(every, stacked, owners)
        self._tasks = {
            split: tf.nest.map_structure(
                lambda leaf: leaf[np.equal(owners, split)], stacked
            )
            for split in sizes
        }

    def __call__(self, count, seed, split):
        """Draws tasks; the arguments are those of `draw_tasks()`."""
        if split not in self._tasks:
            raise ValueError(
                "Tasks must be drawn from a split that has some. Received: "
                f"split={split!r}, where {sorted(self._tasks)} are given. Add "
                "a list to `tasks`."
            )
        size = self._sizes[split]
        drawn = tf.random.stateless_uniform([-(-count // size), size], seed)
        order = tf.reshape(tf.argsort(drawn, axis=-1), [-1])[:count]
        return tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, order), self._tasks[split]
        )


def _stacked(tasks):
    """Returns a structure of arrays of float32 or int32, `[tasks, ...]`."""
    try:
        stacked = tf.nest.map_structure(
            lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]),
            *tasks,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "All tasks must have the same parts and shapes. Received: "
            f"{tasks!r}."
        ) from error
    return tf.nest.map_structure(_narrow, stacked)


def _narrow(array):
    if array.dtype.kind not in "biuf":
        raise ValueError(
            "A task must consist of numbers. Received: values of dtype "
            f"{array.dtype}, such as {array.flat[0]!r}. Number them, and look "
            "them up in `make`."
        )
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def _check_apart(tasks, stacked, owners):
    """Raises where a task is in two splits."""
    found = {}
    leaves = tf.nest.flatten(stacked)
    for number, (task, owner) in enumerate(zip(tasks, owners)):
        # As they are drawn: two numbers may be the same in float32.
        key = b"".join(leaf[number].tobytes() for leaf in leaves)
        if found.setdefault(key, owner) != owner:
            raise ValueError(
                "The tasks of two splits must not overlap. Received: the task "
                f"{task!r} in both {found[key]!r} and {owner!r}."
            )
