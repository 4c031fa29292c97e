import collections
import io
import json
import os
import tempfile
import zipfile

import keras
import numpy as np

from keras_meta import whole_files
from keras_meta.algorithms.siamese_network import SiameseNetwork
from keras_meta.algorithms.siamese_network import energy_distance

_FORMAT = "keras_meta.TaskLibrary"

# Raise this when a file of the new code cannot be read by the old.
_VERSION = 1

# The entries of a file. Tasks go by number: a name may hold anything.
_MANIFEST = "manifest.json"
_COMPARER = "siamese_network.keras"
_EXAMPLES = "tasks/{}/examples.npy"
_MODEL = "tasks/{}/model.keras"

# What is kept of a task. Models are kept as the bytes of their `.keras` file:
# what happens to a model later does not change the library.
_Task = collections.namedtuple("_Task", ["examples", "model", "safe_mode"])


class SimilarTask(collections.namedtuple("SimilarTask", ["name", "distance"])):
    """What `keras_meta.TaskLibrary.most_similar()` returns.

    Attributes:
        name: String, the name of the task.
        distance: Float, its distance, 0 or more.
    """

    __slots__ = ()


class TaskLibrary:
    """Known tasks and their models, to start a new task from the nearest.

    A task is kept as a small set of examples, and with it, if there is one,
    the model that was trained for it. Of a new task the library tells from
    some examples which known one is most similar, and gives a copy of its
    model to go on from: a warm start. How similar two tasks are is told by
    `keras_meta.SiameseNetwork.task_distance()`.

    Examples must have the form that the Siamese network was trained with, its
    scale included.

    Args:
        model: A `keras_meta.SiameseNetwork`, which compares the tasks.

    Raises:
        TypeError: Where `model` is something else.

    Example:

    ```python
    siamese = keras_meta.SiameseNetwork(keras_meta.backbones.mlp((4,)))
    library = keras_meta.TaskLibrary(siamese)
    known = np.random.normal(size=(20, 4)).astype("float32")
    library.add("small", known, keras_meta.backbones.mlp((4,)))
    library.add("large", 10 * known, keras_meta.backbones.mlp((4,)))
    new = np.random.normal(size=(10, 4)).astype("float32")
    print(library.most_similar(new))
    start = library.warm_start(new)  # A Keras model to compile and fit.
    library.save("tasks.zip")
    library = keras_meta.TaskLibrary.load("tasks.zip")
    ```
    """

    def __init__(self, model):
        if not isinstance(model, SiameseNetwork):
            raise TypeError(
                "`model` must be a `keras_meta.SiameseNetwork`, which "
                f"compares tasks. Received: {type(model).__name__}."
            )
        self.model = model
        self._tasks = {}

    @property
    def names(self):
        """The names of the tasks, a list in the order they were added."""
        return list(self._tasks)

    def __len__(self):
        return len(self._tasks)

    def __contains__(self, name):
        return name in self._tasks

    def add(self, name, examples, model=None):
        """Adds a known task.

        Args:
            name: String, any that is not in the library yet.
            examples: Array `[examples, ...]`, inputs of the task; some dozens
                are enough. The library keeps a copy.
            model: Optional `keras.Model`, any that was trained for the task.
                The library keeps it as it is now. A class of your own must be
                registered with `keras.saving.register_keras_serializable`.

        Raises:
            ValueError, TypeError: Where the name is taken, where the examples
                have another shape than the Siamese network's input, or where
                the model cannot be saved and loaded again.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"`name` must be a string. Received: name={name!r} of type "
                f"{type(name).__name__}."
            )
        if name in self._tasks:
            raise ValueError(
                "`name` must be new to the library. Received: "
                f"name={name!r}, which is there. Choose another name."
            )
        kind = type(examples).__name__
        examples = np.array(examples)
        if examples.dtype == object:
            raise TypeError(
                "`examples` must be one array of numbers. Received: "
                f"{kind}. Networks of several inputs cannot be compared."
            )
        # What cannot be compared is found here, and not at the first question.
        self.model._embed_task("examples", examples)
        contents = None
        if model is not None:
            if not isinstance(model, keras.Model):
                raise TypeError(
                    "`model` must be a `keras.Model`. Received: "
                    f"{type(model).__name__}."
                )
            contents = _keras_bytes(model)
            try:
                _model_from_bytes(contents, safe_mode=False)
            except Exception as error:
                raise ValueError(
                    "`model` must be one that can be saved and loaded. "
                    f"Received: model={model!r}, which cannot be loaded: "
                    f"{error}"
                ) from error
        # It was made in this process, and is as safe as what made it.
        self._tasks[name] = _Task(examples, contents, safe_mode=False)

    def distances(self, examples):
        """Returns the distances of all known tasks, the nearest first.

        Args:
            examples: Array `[examples, ...]`, inputs of a new task. The more
                there are, the surer the distances.

        Returns:
            A dictionary of the names and their distances, sorted.

        Raises:
            ValueError: Where the library is empty, or where the examples have
                another shape than the Siamese network's input.
        """
        if not self._tasks:
            raise ValueError(
                "The library must hold a task to compare with. Received: an "
                "empty library. Call `add(name, examples)` first."
            )
        new = self.model._embed_task("examples", examples)
        found = {
            name: energy_distance(
                new, self.model._embed_task("other_examples", task.examples)
            )
            for name, task in self._tasks.items()
        }
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def most_similar(self, examples):
        """Returns the known task that is nearest to a new one.

        Args:
            examples: Array `[examples, ...]`, inputs of the new task.

        Returns:
            A named tuple of `name` and `distance`.

        Raises:
            ValueError: As `distances()`.
        """
        return SimilarTask(*next(iter(self.distances(examples).items())))

    def warm_start(self, examples):
        """Returns a copy of the model of the nearest known task.

        Args:
            examples: Array `[examples, ...]`, inputs of the new task.

        Returns:
            A `keras.Model`, a new one each time: training it changes neither
            the library nor other copies.

        Raises:
            ValueError: Where that task was added without a model, where the
                model cannot be loaded, or as `distances()`.
        """
        return self.model_of(self.most_similar(examples).name)

    def model_of(self, name):
        """Returns a copy of the model of a known task.

        Args:
            name: String, one of `names`.

        Returns:
            A `keras.Model`, a new one each time.

        Raises:
            ValueError: Where there is no such task, where it was added
                without a model, or where the model cannot be loaded.
        """
        task = self._task(name)
        if task.model is None:
            raise ValueError(
                "A task must have a model to start from. Received: the task "
                f"{name!r}, which was added without one. Give it to `add()`."
            )
        try:
            return _model_from_bytes(task.model, task.safe_mode)
        except Exception as error:
            raise ValueError(
                f"The model of the task {name!r} could not be loaded: {error}"
            ) from error

    def examples_of(self, name):
        """Returns a copy of the examples of a known task.

        Args:
            name: String, one of `names`.

        Returns:
            Array `[examples, ...]`.

        Raises:
            ValueError: Where there is no such task.
        """
        return self._task(name).examples.copy()

    def _task(self, name):
        if name not in self._tasks:
            raise ValueError(
                "`name` must be one of the library. Received: "
                f"name={name!r}, where the library knows {self.names}."
            )
        return self._tasks[name]

    def save(self, path):
        """Writes the library to one file, a zip archive.

        It holds the Siamese network, the examples and the models. A file that
        is there is replaced only when the new one is whole.

        Args:
            path: String or path, the file to write.
        """
        path = os.fspath(path)
        manifest = {
            "format": _FORMAT,
            "version": _VERSION,
            "tasks": [
                {"name": name, "has_model": task.model is not None}
                for name, task in self._tasks.items()
            ],
        }
        with (
            whole_files.writing(path) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
            archive.writestr(_COMPARER, _keras_bytes(self.model))
            for number, task in enumerate(self._tasks.values()):
                examples = io.BytesIO()
                np.save(examples, task.examples, allow_pickle=False)
                archive.writestr(_EXAMPLES.format(number), examples.getvalue())
                if task.model is not None:
                    archive.writestr(_MODEL.format(number), task.model)

    @classmethod
    def load(cls, path, safe_mode=True):
        """Reads a library that `save()` wrote.

        Args:
            path: String or path, the file.
            safe_mode: Boolean. Whether Keras refuses models that hold code,
                such as a `Lambda` layer, here and in `warm_start()`. `False`
                is only for files that you trust. Defaults to `True`.

        Returns:
            A `TaskLibrary`.

        Raises:
            ValueError: Where the file is no library, is damaged, is of
                another version, or where its Siamese network cannot be
                loaded or does not fit the examples.
        """
        path = os.fspath(path)
        # A file that cannot be opened is an error of its own.
        with open(path, "rb") as file:
            try:
                manifest, comparer, tasks = _read(file, safe_mode)
            except Exception as error:
                # There is no end to what wrong bytes make a reader raise.
                raise ValueError(
                    "A task library must be a whole file that "
                    f"`TaskLibrary.save()` wrote. Received: {path}, which is "
                    f"something else or damaged ({error})."
                ) from error
        if manifest["version"] != _VERSION:
            raise ValueError(
                f"A task library must have the file version {_VERSION} to be "
                f"read by this version of keras_meta. Received: {path} of "
                f"version {manifest['version']}."
            )
        try:
            library = cls(_model_from_bytes(comparer, safe_mode))
        except Exception as error:
            raise ValueError(
                f"The Siamese network of the task library {path} could not be "
                f"loaded: {error}"
            ) from error
        for name, task in tasks.items():
            try:
                library.model._embed_task("examples", task.examples)
            except Exception as error:
                raise ValueError(
                    f"The examples of the task {name!r} of the task library "
                    f"{path} could not be compared: {error}"
                ) from error
        library._tasks.update(tasks)
        return library


def _read(file, safe_mode):
    """Returns the manifest, the Siamese network's bytes, and the tasks.

    Of another version it reads the manifest alone.
    """
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read(_MANIFEST))
        if manifest["format"] != _FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}")
        if type(manifest["version"]) is not int:
            raise ValueError(f"its version is {manifest['version']!r}")
        if manifest["version"] != _VERSION:
            return manifest, None, None
        tasks = {}
        for number, entry in enumerate(manifest["tasks"]):
            name = entry["name"]
            if not isinstance(name, str):
                raise TypeError(f"a task is named {name!r}")
            if name in tasks:
                raise ValueError(f"two tasks are named {name!r}")
            examples = io.BytesIO(archive.read(_EXAMPLES.format(number)))
            # `np.load` would take an archive of arrays as well.
            examples = np.lib.format.read_array(examples, allow_pickle=False)
            model = None
            if entry["has_model"]:
                model = archive.read(_MODEL.format(number))
            tasks[name] = _Task(examples, model, safe_mode)
        return manifest, archive.read(_COMPARER), tasks


def _keras_bytes(model):
    # Keras reads and writes models by their path only.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        with open(path, "rb") as file:
            return file.read()


def _model_from_bytes(contents, safe_mode):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        with open(path, "wb") as file:
            file.write(contents)
        return keras.saving.load_model(path, safe_mode=safe_mode)
