import functools
import inspect
import os

import keras
import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import compiled_loop
from keras_meta import episode
from keras_meta import export
from keras_meta import inner_loop
from keras_meta import replicas
from keras_meta import resuming
from keras_meta import whole_files
from keras_meta import xla
from keras_meta.gradients import dense_gradients

# What entries of a file hold states of random generators.
_GENERATOR = "generator_"


class EpisodicModel(keras.Model):
    """A model whose example is an episode.

    An episode is a task made concrete: labeled examples to adapt on (the
    support set) and examples to answer (the queries). A meta-batch of
    episodes is to this model what a batch of images is to an ordinary one:

    ```
    x = {"support_x": [tasks, support, ...],      y = [tasks, query, ...]
         "support_y": [tasks, support, ...],      sample_weight = [tasks, query]
         "query_x":   [tasks, query, ...],
         "support_weight": [tasks, support]}
    ```

    `support_weight` and `sample_weight` are optional, and 0 where padded.
    `model(x)` gives the predictions for the queries, `[tasks, query, ways]`
    (logits) or `[tasks, query, ...]` (regression). `compile()`, `fit()`,
    `evaluate()`, `predict()`, callbacks, metrics and saving are those of
    every Keras model.

    A subclass writes `call()`, which adapts to the support set and answers
    the queries, and `adapt()`; and `train_step()` where its training is not
    the gradient of the query loss.

    Args:
        network: A built `keras.Model`, what the algorithm trains.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Example:

    ```python
    class Shifted(keras_meta.EpisodicModel):
        # Moves the answers of the network by its mean error on the support.
        def call(self, x, training=False):
            def answer(examples):
                flat = keras.ops.reshape(examples, (-1, examples.shape[-1]))
                answers = self.network(flat, training=training)
                return keras.ops.reshape(answers, (*examples.shape[:2], -1))

            errors = x["support_y"] - answer(x["support_x"])
            shift = keras.ops.mean(errors, axis=1, keepdims=True)
            return answer(x["query_x"]) + shift

    model = Shifted(keras_meta.backbones.mlp())
    model.compile(optimizer="adam", loss="mse")
    model.fit(keras_meta.episodes.sinusoids(), steps_per_epoch=100)
    ```
    """

    # Whether targets of a regression have the shape of the network's outputs.
    targets_like_outputs = True

    # What messages call the data, a batch of it, and the way to a fixed list.
    _data_name = "episodes"
    _batch_name = "meta-batch of episodes"
    _fixed_list = "a fixed list of episodes with `episodes=`"

    def __init__(self, network, **kwargs):
        # Support labels are inputs, too, and must not be rounded in mixed
        # precision; the network casts what it gets by itself.
        super().__init__(autocast=False, **kwargs)
        replicas.check_strategy()
        check_network(network)
        self.network = network
        self.built = True

    def adapt(self, support_x, support_y, support_weight=None):
        """Returns an ordinary Keras model for one task.

        Args:
            support_x: Array `[support, ...]`, the examples to adapt on.
            support_y: Array `[support, ...]`, their labels or targets.
            support_weight: Optional array `[support]`, 0 where padded.

        Returns:
            A `keras.Model` from query inputs `[query, ...]` to predictions.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`adapt(support_x, support_y, support_weight)`."
        )

    def task_state(self, x):
        """Adapts to support sets; returns what `answer_from_state()` needs.

        What `model(x)` does is so taken apart: adapted once, a task answers
        queries any number of times. Unless an algorithm keeps less, it is
        the support set itself.

        Args:
            x: Dictionary of the support sets of a meta-batch: `support_x`,
                `support_y`, and maybe `support_weight`.

        Returns:
            Structure of tensors `[tasks, ...]`.
        """
        return x

    def answer_from_state(self, state, query_x):
        """Answers queries of tasks that were adapted to before.

        Args:
            state: What `task_state()` returned.
            query_x: The queries of the same tasks, `[tasks, query, ...]`.

        Returns:
            The predictions that `model(x)` gives of support sets and queries.
        """
        return self({**state, episode.QUERY_X: query_x}, training=False)

    def predictions_per_step(self, x):
        """Returns the predictions for the queries after each inner step.

        Args:
            x: A meta-batch of episodes.

        Returns:
            A list of predictions. The last is the answer of `model(x)`; one
            that adapts in steps puts those of fewer steps before it, the
            first without any adaptation.
        """
        return [self(x, training=False)]

    def compute_output_spec(self, x, training=None):
        # Keras would trace `call()`, the whole adaptation, to learn a shape.
        episode.check_keys(x)
        queries = tf.nest.flatten(x[episode.QUERY_X])[0]
        tasks, query = queries.shape[:2]
        example = tf.nest.map_structure(
            lambda leaf: keras.KerasTensor(
                (query, *leaf.shape[2:]), leaf.dtype
            ),
            x[episode.QUERY_X],
        )
        return tf.nest.map_structure(
            lambda leaf: keras.KerasTensor((tasks, *leaf.shape), leaf.dtype),
            self.network.compute_output_spec(example),
        )

    def compile_from_config(self, config):
        # Keras does not compile a loaded model whose `compile()` is its own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def _train_with(self, data, answer):
        """Takes a training step, where that is not quite Keras's own.

        Args:
            data: What `train_step()` is given.
            answer: Function of no arguments that returns the predictions and
                the loss.

        Returns:
            A dictionary of logs, for `train_step()` to return.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            predictions, loss = answer()
            scaled_loss = self.optimizer.scale_loss(loss)
        # Of what is not used there is no gradient, and Keras would warn.
        gradients = dense_gradients(
            tape,
            scaled_loss,
            [variable.value for variable in self.trainable_variables],
        )
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        self._loss_tracker.update_state(
            replicas.unscale(loss),
            sample_weight=tf.shape(tf.nest.flatten(x)[0])[0],
        )
        return self.compute_metrics(x, y, predictions, sample_weight)

    def make_train_function(self, force=False):
        # Keras would create its variables within the first step, and
        # TensorFlow traces a step that creates variables once more. With
        # several devices, Keras creates them before.
        self._build_optimizer()
        super().make_train_function(force)
        return self.train_function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # For the batch to build by, Keras takes the mean of those that the
        # replicas get, of labels, too, which then are no integers; and it
        # fails where the replicas are on several machines.
        if self._distribute_strategy is not None and iterator is not None:
            *_, batches = next(iter(iterator))
            data_batch = replicas.first(
                self._distribute_strategy, next(batches)
            )
        super()._maybe_symbolic_build(data_batch=data_batch)

    def _make_function(self, step_function):
        strategy, count = self._distribute_strategy, self.steps_per_execution
        if self.jit_compile:
            step_function = xla.compiled(step_function)
        if replicas.are_on_several_machines(strategy):
            function = self._with_logs_as_one(step_function)
        else:
            function = super()._make_function(step_function)
        if count == 1:
            return function
        if strategy is not None:
            return replicas.with_steps_apart(function)
        if not self.jit_compile:
            return function
        looped = compiled_loop.make(step_function, count)

        def loop_if_possible(iterator):
            if compiled_loop.can_loop(iterator, count):
                return looped(iterator)
            return function(iterator)

        return loop_if_possible

    def _with_logs_as_one(self, step_function):
        # On several machines Keras takes the mean of each log along an axis
        # that it does not have, one after the other. As one, they travel once.
        names = []

        def step(data):
            logs = step_function(data)
            names[:] = logs
            values = [tf.cast(value, "float32") for value in logs.values()]
            return tf.stack(values)[None]

        function = super()._make_function(step)
        return lambda iterator: dict(zip(names, tf.unstack(function(iterator))))

    def _build_optimizer(self):
        # There is none where the model was never compiled.
        optimizer = getattr(self, "optimizer", None)
        if self._distribute_strategy is None and optimizer is not None:
            if not optimizer.built:
                optimizer.build(self.trainable_variables)

    def _build_metrics(self, x, y):
        """Creates the variables of compiled metrics, as of the optimizer.

        Those of several outputs are left to Keras.
        """
        if self.run_eagerly or self._distribute_strategy is not None:
            return
        unbuilt = [
            metrics
            for metrics in self._metrics_to_build()
            if metrics is not None and not metrics.built
        ]
        if not unbuilt:
            return
        y_pred = self.compute_output_spec(x)
        if tf.nest.is_nested(y_pred) or tf.nest.is_nested(y):
            return
        # Which accuracy is meant, Keras tells from the shapes.
        if y_pred.shape[-1] is not None or len(y.shape) < len(y_pred.shape):
            for metrics in unbuilt:
                metrics.build(y, y_pred)

    def _metrics_to_build(self):
        return [self._compile_metrics]

    def fit(self, *args, **kwargs):
        given = named_arguments(keras.Model.fit, self, args, kwargs)
        self._check_data(given, "steps_per_epoch")
        if isinstance(given.get("x"), tf.data.Dataset):
            given = resuming.continued(given)
        given["x"] = self._among_replicas(given, training=True)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(
            given.get("validation_data")
        )
        if x is not None:
            validation = {
                "x": x,
                "y": y,
                "sample_weight": weight,
                "validation_steps": given.get("validation_steps"),
                "batch_size": given.get("validation_batch_size")
                or given.get("batch_size"),
            }
            self._check_data(validation, "validation_steps")
            x = self._among_replicas(validation)
            if isinstance(x, tf.data.Dataset):
                given["validation_data"] = x
        data_sets = (tf.data.Dataset, tf.distribute.DistributedDataset)
        if isinstance(given["x"], data_sets):
            # Keras would warn that it does not shuffle a data set.
            given.setdefault("shuffle", False)
        with replicas.naming_lost_workers():
            return super().fit(**given)

    def evaluate(self, *args, **kwargs):
        # `fit()` hands its validation data on, checked already.
        if "_use_cached_eval_dataset" in kwargs:
            return super().evaluate(*args, **kwargs)
        given = named_arguments(keras.Model.evaluate, self, args, kwargs)
        self._check_data(given, "steps")
        given["x"] = self._among_replicas(given)
        with replicas.naming_lost_workers():
            return super().evaluate(**given)

    def predict(self, *args, **kwargs):
        given = named_arguments(keras.Model.predict, self, args, kwargs)
        self._check_data(given, "steps", labeled=False)
        given["x"] = self._among_replicas(given)
        with replicas.naming_lost_workers():
            return super().predict(**given)

    def train_on_batch(self, *args, **kwargs):
        self._check_data(
            named_arguments(keras.Model.train_on_batch, self, args, kwargs)
        )
        return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        self._check_data(
            named_arguments(keras.Model.test_on_batch, self, args, kwargs)
        )
        return super().test_on_batch(*args, **kwargs)

    def predict_on_batch(self, x):
        self._check_data({"x": x}, labeled=False)
        return super().predict_on_batch(x)

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Saves the model as Keras does, to one `.keras` file.

        A file that is there is replaced only when the new one is whole: where
        the disk is full, or the process is killed, it stays as it was.

        Args:
            filepath: String or path, the file to write.
            overwrite: Boolean. Whether a file that is there is replaced, and
                not asked for first. Defaults to `True`.
            zipped: Boolean; see `keras.Model.save()`. `None` (the default)
                means one file.
            **kwargs: Further arguments of `keras.Model.save()`.
        """
        write = functools.partial(super().save, zipped=zipped, **kwargs)
        self._write_whole(write, filepath, overwrite, ".keras")

    def save_weights(self, filepath, overwrite=True, **kwargs):
        """Saves all weights, those of the optimizer included, as Keras does.

        A file that is there is replaced only when the new one is whole.

        Args:
            filepath: String or path, the file to write.
            overwrite: Boolean. Whether a file that is there is replaced, and
                not asked for first. Defaults to `True`.
            **kwargs: Further arguments of `keras.Model.save_weights()`.
        """
        write = functools.partial(super().save_weights, **kwargs)
        self._write_whole(write, filepath, overwrite, ".weights.h5")

    def _write_whole(self, write, filepath, overwrite, ending):
        # It is built when a file is read, which would warn that it was not.
        self._build_optimizer()
        # Folders, other places than the disk, and questions are left to Keras.
        try:
            path = os.fspath(filepath)
        except TypeError:
            path = ""
        local = path.endswith(ending) and "://" not in path
        asks = not overwrite and os.path.exists(path)
        if not local or asks:
            write(filepath, overwrite=overwrite)
            return
        with whole_files.replacing(path, ending) as temporary:
            write(temporary)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Keras saves no state of random generators, of dropout for example.
        for number, variable in enumerate(inner_loop.seed_variables(self)):
            store[f"{_GENERATOR}{number}"] = variable

    def load_own_variables(self, store):
        names = [name for name in store.keys() if name.startswith(_GENERATOR)]
        super().load_own_variables(
            {name: store[name] for name in store.keys() if name not in names}
        )
        generators = inner_loop.seed_variables(self)
        # Files of earlier versions have none.
        for name in names:
            number = int(name.removeprefix(_GENERATOR))
            generators[number].assign(store[name])

    def export(
        self,
        filepath,
        format="tf_saved_model",
        preprocessing=None,
        warmup=None,
        **kwargs,
    ):
        """Writes a SavedModel that adapts inside its graph.

        Its signatures take any number of tasks, supports and queries:

        - `adapt_and_predict`: from `support_x`, `support_y` and `query_x` to
          the predictions;
        - `adapt`: from `support_x` and `support_y` to `task_state`, numbers
          `[tasks, size]`;
        - `predict`: from `task_state` and `query_x` to the predictions.

        It loads in plain TensorFlow, without this package, and holds what
        TensorFlow Serving needs. For a device, see
        `keras_meta.export_litert()`.

        Args:
            filepath: String or path, the folder to write.
            format: `"tf_saved_model"`, the only format of this method.
            preprocessing: Optional `keras.Model` from one batch of raw
                examples to what the network takes, such as resized images;
                `support_x` and `query_x` are then raw.
            warmup: Optional meta-batch of raw episodes, a dictionary as of
                `call()`. With it a server is warmed up. `None` (the default)
                means one of made-up examples, or none where the size of an
                example is not fixed.
            **kwargs: Arguments of `keras.export.ExportArchive.write_out()`,
                such as `verbose`.

        Raises:
            ValueError, TypeError: Where the format is another one, or the
                size of the inputs is not known.
        """
        arguments.check_choice("format", format, ("tf_saved_model",))
        if preprocessing is not None:
            check_is_model("preprocessing", preprocessing)
        if warmup is not None:
            episode.check_keys(warmup)
        export.export_saved_model(
            self, filepath, preprocessing, warmup, **kwargs
        )

    @property
    def task_loss(self):
        """The loss that tells what the labels are: the compiled one."""
        return getattr(self, "loss", None)

    @property
    def takes_integer_labels(self):
        """Whether labels are class numbers, as far as the loss tells."""
        loss = self.task_loss
        if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
            return True
        name = loss if isinstance(loss, str) else getattr(loss, "__name__", "")
        return name == "sparse_categorical_crossentropy"

    def _check_data(self, given, steps_name=None, labeled=True):
        """Checks a data set by its first meta-batch, or a meta-batch.

        Args:
            given: Dictionary of the arguments of `fit()` or its like.
            steps_name: String, which of them limits an endless data set.
            labeled: Boolean. Whether there must be labels of the queries.
        """
        # Only compiled models have it, and `predict()` needs no more.
        replicas.check_scope(
            self._distribute_strategy, self.compiled and self.jit_compile
        )
        x = given.get("x")
        if isinstance(x, tf.data.Dataset):
            endless = x.cardinality() == tf.data.INFINITE_CARDINALITY
            if endless and given.get(steps_name) is None:
                raise ValueError(
                    f"`{steps_name}` must be given for endless "
                    f"{self._data_name}. Received: an endless data set and "
                    f"{steps_name}=None. Pass `{steps_name}=`, or make "
                    f"{self._fixed_list}."
                )
            batch = next(iter(x.take(1)), None)
            if batch is None:
                raise ValueError(
                    f"The data set must hold at least one {self._batch_name}. "
                    "Received: an empty data set."
                )
            x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
            given = {**given, "x": x, "y": y, "sample_weight": weight}
        self._check_given(given, labeled)
        x = given.get("x")
        if labeled and isinstance(x, dict) and episode.SUPPORT_X in x:
            self._build_metrics(*_arrays(x, given["y"]))

    def _among_replicas(self, given, training=False):
        """Returns the `x` of `fit()` or its like, checked for replicas."""
        return replicas.check_shares(
            given.get("x"),
            given.get("batch_size") or 32,
            self.distribute_strategy.num_replicas_in_sync,
            training,
        )

    def _check_given(self, given, labeled):
        """Checks arguments as `_check_data()`, whose `x` is no data set."""
        if given.get("class_weight") is not None:
            raise ValueError(
                "`class_weight` must not be given: the classes of an episode "
                "are numbered anew each time. Received: class_weight="
                f"{given['class_weight']}. Give weights to queries with "
                "`sample_weight`."
            )
        x, y = given.get("x"), given.get("y")
        if hasattr(x, "__next__") or isinstance(x, keras.utils.PyDataset):
            # What a generator yields once is gone, so that `call()`, which
            # checks what it is given, is the first to look at it.
            return
        if isinstance(x, tf.distribute.DistributedDataset):
            return
        if labeled and y is None:
            episode.check_keys(x)
            raise ValueError(
                "The labels of the queries must be given. Received: y=None. "
                "Pass `y`, or a data set of `(x, y)`."
            )
        self._check_batch(x, y, given.get("sample_weight"))

    def _check_given_examples(self, given, labeled):
        """Checks arguments that are no episodes, where a model takes such."""
        if labeled and given.get("y") is None:
            raise ValueError(
                "The labels must be given. Received: y=None. Pass `y`, or a "
                "data set of `(x, y)`."
            )
        self._check_batch(
            given.get("x"), given.get("y"), given.get("sample_weight")
        )

    def _one_task(self, support_x, support_y, support_weight):
        """Checks the arguments of `adapt()`.

        Returns:
            A dictionary with the keys of an episode, without an axis of
            tasks; its queries are the support examples.
        """
        task = {
            episode.SUPPORT_X: support_x,
            episode.SUPPORT_Y: _array(support_y),
            episode.QUERY_X: support_x,
        }
        if support_weight is not None:
            task[episode.SUPPORT_WEIGHT] = _array(support_weight)
        task = tf.nest.map_structure(tf.convert_to_tensor, task)
        self._check_batch(tf.nest.map_structure(lambda leaf: leaf[None], task))
        return task

    def _check_episode(self, x):
        """Checks what `call()` gets: its values, where there are any yet."""
        if tf.executing_eagerly() and not _is_symbolic(x):
            self._check_batch(x)
        else:
            episode.check(x, integer_labels=self.takes_integer_labels)

    def _check_batch(self, x, y=None, sample_weight=None):
        episode.check_keys(x)
        x, y, sample_weight = _arrays(x, y, sample_weight)
        episode.check(x, y, sample_weight, self.takes_integer_labels)
        _check_support_weight(x.get(episode.SUPPORT_WEIGHT))
        if self.takes_integer_labels:
            outputs = tf.nest.flatten(self.compute_output_spec(x))
            for labels in (x[episode.SUPPORT_Y], y):
                labels = tf.nest.flatten(labels) if labels is not None else []
                for leaf, output in zip(labels, outputs):
                    if output.shape[-1] is not None:
                        episode.check_label_range(leaf, output.shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["network"] = keras.saving.deserialize_keras_object(
            config["network"]
        )
        return cls(**config)


def check_is_model(name, model):
    """Raises a `TypeError` where an argument is no `keras.Model`."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{name}` must be a `keras.Model`. Received: "
            f"{name}={model!r} of type {type(model).__name__}."
        )


def check_network(network):
    """Raises an error where `network` is no built `keras.Model`."""
    check_is_model("network", network)
    if not network.built:
        raise ValueError(
            "`network` must be built, so that its weights are there. "
            f"Received: network={network!r}, which is not built. Give it "
            "a `keras.Input`, or call it once on a batch of examples."
        )


def _check_support_weight(weight):
    if weight is None:
        return
    weight = np.asarray(weight)
    wrong = weight[~(np.isfinite(weight) & (weight >= 0))]
    if wrong.size:
        raise ValueError(
            "`support_weight` must be finite and not negative. Received: "
            f"{wrong[0]}. Give padded examples the weight 0."
        )
    if not np.all(np.any(weight, axis=1)):
        raise ValueError(
            "Every support set must have an example whose weight is not "
            "0. Received: a task whose `support_weight` is 0 throughout."
        )


def _arrays(x, *others):
    """Returns a dictionary and what comes with it, whose leaves have shapes."""
    x = {key: _array(value) for key, value in x.items()}
    return tf.nest.map_structure(
        _with_shape, (x, *(_array(other) for other in others))
    )


def _with_shape(leaf):
    has_shape = leaf is None or hasattr(leaf, "shape")
    return leaf if has_shape else tf.convert_to_tensor(leaf)


def _is_symbolic(x):
    leaves = tf.nest.flatten(x)
    return any(isinstance(leaf, keras.KerasTensor) for leaf in leaves)


def _array(labels):
    # A list of numbers, or of lists of them, is an array, and no structure
    # of several outputs.
    leaves = tf.nest.flatten(labels)
    is_list = isinstance(labels, (list, tuple)) and leaves
    return np.asarray(labels) if is_list and not np.ndim(leaves[0]) else labels


def named_arguments(method, model, args, kwargs):
    """Returns the arguments of a call by name, without `self`."""
    bound = inspect.signature(method).bind(model, *args, **kwargs)
    given = dict(bound.arguments)
    given.pop("self")
    return given
