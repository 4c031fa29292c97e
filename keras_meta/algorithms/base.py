import keras
import tensorflow as tf

from keras_meta import episode


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

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(network, keras.Model):
            raise TypeError(
                "`network` must be a `keras.Model`. Received: "
                f"network={network!r} of type {type(network).__name__}."
            )
        if not network.built:
            raise ValueError(
                "`network` must be built, so that its weights are there. "
                f"Received: network={network!r}, which is not built. Give it "
                "a `keras.Input`, or call it once on a batch of examples."
            )
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

    def fit(self, x=None, y=None, *args, **kwargs):
        self._check_data(x, y, kwargs.get("steps_per_epoch"))
        if isinstance(x, tf.data.Dataset):
            # Keras would warn that it does not shuffle a data set.
            kwargs.setdefault("shuffle", False)
        validation = kwargs.get("validation_data")
        if validation is not None:
            validation_x, validation_y, _ = (
                keras.utils.unpack_x_y_sample_weight(validation)
            )
            steps = kwargs.get("validation_steps")
            self._check_data(
                validation_x, validation_y, steps, "validation_steps"
            )
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        # `fit()` hands its validation data, checked already, by keyword.
        if "_use_cached_eval_dataset" not in kwargs:
            self._check_data(x, y, kwargs.get("steps"), "steps")
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        self._check_data(x, None, kwargs.get("steps"), "steps")
        return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        self._check_data(x, y)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        self._check_data(x, y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def predict_on_batch(self, x):
        self._check_data(x, None)
        return super().predict_on_batch(x)

    @property
    def task_loss(self):
        """The loss that tells what the labels are: the compiled one."""
        return getattr(self, "loss", None)

    @property
    def takes_integer_labels(self):
        """Whether labels are class numbers, as far as the loss tells."""
        loss = self.task_loss
        name = loss if isinstance(loss, str) else ""
        if isinstance(loss, keras.losses.Loss):
            name = type(loss).__name__
        elif callable(loss):
            name = getattr(loss, "__name__", "")
        name = name.lower().replace("_", "")
        return name == "sparsecategoricalcrossentropy"

    def _check_data(self, x, y=None, steps=None, steps_name="steps_per_epoch"):
        """Checks a data set by its first meta-batch, or a meta-batch."""
        if isinstance(x, tf.data.Dataset):
            endless = x.cardinality() == tf.data.INFINITE_CARDINALITY
            if endless and steps is None:
                raise ValueError(
                    f"`{steps_name}` must be given for endless episodes. "
                    f"Received: an endless data set and {steps_name}=None. "
                    f"Pass `{steps_name}=`, or make a fixed list of episodes "
                    "with `episodes=`."
                )
            batch = next(iter(x.take(1)), None)
            if batch is None:
                raise ValueError(
                    "The data set must hold at least one meta-batch of "
                    "episodes. Received: an empty data set."
                )
            x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        elif hasattr(x, "__next__") or isinstance(x, keras.utils.PyDataset):
            # What a generator yields once is gone, so that `call()`, which
            # checks what it is given, is the first to look at it.
            return
        elif isinstance(x, tf.distribute.DistributedDataset):
            return
        else:
            weight = None
        self._check_batch(x, y, weight)

    def _check_batch(self, x, y=None, sample_weight=None):
        episode.check_keys(x)
        x, y = tf.nest.map_structure(_with_shape, (dict(x), y))
        episode.check(x, y, sample_weight, self.takes_integer_labels)
        if self.takes_integer_labels:
            outputs = self.compute_output_spec(x).shape[-1]
            episode.check_label_range(x[episode.SUPPORT_Y], outputs)
            if y is not None:
                episode.check_label_range(y, outputs)

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


def _with_shape(leaf):
    has_shape = leaf is None or hasattr(leaf, "shape")
    return leaf if has_shape else tf.convert_to_tensor(leaf)
