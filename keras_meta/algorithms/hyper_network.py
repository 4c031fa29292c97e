import math

import keras
import tensorflow as tf

from keras_meta import adapting_weights
from keras_meta import arguments
from keras_meta import episode
from keras_meta import inner_loop
from keras_meta import normalization
from keras_meta import task_mapping as task_mapping_module
from keras_meta.algorithms import class_labels
from keras_meta.algorithms import dense_heads
from keras_meta.algorithms import network_copy
from keras_meta.algorithms.amortized_model import weighted_mean
from keras_meta.algorithms.base import EpisodicModel
from keras_meta.algorithms.base import check_network
from keras_meta.algorithms.perceptron import Perceptron

CHOICES = ("all", "head", "low_rank", "film")

# The weights of the generator's last layer; with an optimizer's state some
# hundred megabytes.
_LARGEST_GENERATOR = 20_000_000


@keras.saving.register_keras_serializable(package="keras_meta")
class HyperNetwork(EpisodicModel):
    """A network that writes the weights of another one for each task.

    The support set is encoded, pair by pair, and the mean of the codes is
    turned into weights of the given network, which then answers the queries.
    What is generated is the difference to weights that are shared by all tasks
    and learned along. The order of the support set does not matter.

    What is generated, for each layer (`generates`):

    - `"all"`: every weight. For small networks.
    - `"head"`: the weights of the last layer that has any.
    - `"low_rank"`: of each matrix, or convolution, a matrix of rank `rank`,
      and every bias and scale.
    - `"film"`: one factor for each output of a layer, and every bias and
      scale; feature-wise modulation, few numbers for a large network.

    Args:
        network: A built `keras.Model`, one example in, one prediction out,
            for classification with one output per way.
        encoder: A built `keras.Model` from examples to embeddings
            `[batch, size]`, which reads the support set. `None` (the default)
            takes the examples as they are, flattened; images need one.
        regression: Boolean. Whether labels are targets, floats
            `[examples, outputs]`, and not classes. Defaults to `False`.
        generates: One of the above. Defaults to `"film"`.
        rank: Integer, only for `"low_rank"`. Defaults to `4`.
        hidden_units: Sequence of integers, the sizes of the hidden layers
            that encode a pair. Defaults to `(128, 128)`.
        code_size: Integer, the size of a code. Defaults to `128`.
        normalization_statistics: String, the statistics that batch
            normalization in `network` uses: `"batch"` (the default), those of
            the queries together, which is transductive; `"support"`, those of
            the support set; `"frozen"`, those that the network came with.
        task_mapping: `"vectorized"`, `"sequential"`, or `"auto"` (the
            default): how the tasks of a meta-batch are run. Changes speed
            and memory, not results.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described, or the
            network has more weights than can be generated this way.

    Example:

    ```python
    model = keras_meta.HyperNetwork(
        keras_meta.backbones.mlp((1,), (40, 40), outputs=1),
        regression=True,
        generates="all",
    )
    model.compile("adam", loss="mse")
    model.fit(keras_meta.episodes.sinusoids(), steps_per_epoch=100)
    ```

    Reference:
        - [Ha et al., 2017](https://arxiv.org/abs/1609.09106)
        - [Perez et al., 2018](https://arxiv.org/abs/1709.07871) (FiLM)
        - [Requeima et al., 2019](https://arxiv.org/abs/1906.07697)
    """

    def __init__(
        self,
        network,
        encoder=None,
        regression=False,
        generates="film",
        rank=4,
        hidden_units=(128, 128),
        code_size=128,
        normalization_statistics="batch",
        task_mapping="auto",
        **kwargs,
    ):
        super().__init__(network, **kwargs)
        arguments.check_choice("regression", regression, (True, False))
        arguments.check_choice("generates", generates, CHOICES)
        arguments.check_positive_integer("rank", rank)
        arguments.check_units("hidden_units", hidden_units)
        arguments.check_positive_integer("code_size", code_size)
        arguments.check_choice(
            "normalization_statistics",
            normalization_statistics,
            ("batch", "support", "frozen"),
        )
        arguments.check_choice(
            "task_mapping", task_mapping, task_mapping_module.CHOICES
        )
        if not network.trainable_variables:
            raise ValueError(
                "`network` must have trainable weights, since these are "
                f"generated. Received: network={network!r} without any."
            )
        normalization.check_layers(network)
        if encoder is not None:
            check_network(encoder)
        self.encoder = encoder
        self.regression = regression
        self.generates = generates
        self.rank = rank
        self.hidden_units = tuple(hidden_units)
        self.code_size = code_size
        self.normalization_statistics = normalization_statistics
        self.task_mapping = task_mapping
        self.outputs = dense_heads.embedding_size(network)
        self._parts = _parts(network, generates, rank)
        count = sum(part.count for part in self._parts)
        _check_count(network, generates, rank, code_size, count)
        self.pairs = Perceptron(
            self.hidden_units, code_size, dtype=self.variable_dtype
        )
        self.pairs.build((None, None, self._example_size() + self.outputs))
        self.generator = keras.layers.Dense(
            count,
            # Small, so that each task begins near the shared weights.
            kernel_initializer=keras.initializers.VarianceScaling(0.01),
            dtype=self.variable_dtype,
            name="generator",
        )
        self.generator.build((None, code_size))
        # A product of two small matrices would learn nothing at first, so one
        # of the two begins large.
        self.left_factors = [
            self.add_weight(
                shape=part.shape,
                initializer=keras.initializers.RandomNormal(
                    stddev=1.0 / math.sqrt(part.shape[0])
                ),
                autocast=False,
                name=f"left_factor_{number}",
            )
            for number, part in enumerate(self._parts)
            if part.kind == "low_rank"
        ]

    @property
    def takes_integer_labels(self):
        """Whether labels are class numbers, and not targets to regress."""
        return not self.regression

    @property
    def generated_weights(self):
        """How many numbers are generated for a task."""
        return self.generator.units

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        if self.takes_integer_labels:
            class_labels.check_takes_logits(loss)
        super().compile(optimizer, loss, *args, **kwargs)

    def call(self, x, training=False):
        self._check_episode(x)
        self._check_statistics(x)
        x = episode.without_nan(x)
        tasks = {**x, "generated": self._generate(x, training)}
        if training:
            count = tf.shape(tf.nest.flatten(x[episode.QUERY_X])[0])[0]
            tasks["seeds"] = inner_loop.draw_task_seeds(self.network, count)
        shared, factors = self._shared()

        def answer(task):
            return inner_loop.predict(
                self.network,
                self._weights(shared, factors, task["generated"]),
                inner_loop.network_state(self.network, task.get("seeds", ())),
                task[episode.SUPPORT_X],
                task[episode.QUERY_X],
                training,
                self.normalization_statistics,
                task.get(episode.SUPPORT_WEIGHT),
            )

        return task_mapping_module.map_tasks(answer, tasks, self._mapping())

    def task_state(self, x):
        x = {**x, episode.QUERY_X: x[episode.SUPPORT_X]}
        self._check_episode(x)
        self._check_statistics(x)
        x = episode.without_nan(x)
        state = {"generated": self._generate(x, training=False)}
        if self.normalization_statistics != "support":
            return state
        shared, factors = self._shared()

        def statistics(task):
            return inner_loop.kept_statistics(
                self.network,
                self._weights(shared, factors, task["generated"]),
                inner_loop.network_state(self.network),
                task[episode.SUPPORT_X],
                task.get(episode.SUPPORT_WEIGHT),
            )

        kept = task_mapping_module.map_one_or_more(
            statistics, {**x, **state}, self._mapping()
        )
        return {**state, "statistics": kept}

    def answer_from_state(self, state, query_x):
        shared, factors = self._shared()

        def answer(task):
            return inner_loop.predict_with_statistics(
                self.network,
                self._weights(shared, factors, task["generated"]),
                inner_loop.network_state(self.network),
                task.get("statistics"),
                task[episode.QUERY_X],
                self.normalization_statistics,
            )

        return task_mapping_module.map_one_or_more(
            answer, {**state, episode.QUERY_X: query_x}, self._mapping()
        )

    def adapt(self, support_x, support_y, support_weight=None):
        """Returns a copy of the network with the weights of one task.

        It is an ordinary Keras model, and needs nothing of this package. Its
        batch normalization holds the statistics of the support set, also
        where this model uses those of the batch at hand.

        Args:
            support_x: Array `[support, ...]`, the examples to adapt on.
            support_y: Array `[support, ...]`, their labels or targets.
            support_weight: Optional array `[support]`, 0 where padded.

        Returns:
            A `keras.Model` from query inputs `[query, ...]` to predictions.

        Raises:
            ValueError: Where the support set is empty, or its parts do not
                fit each other or the network.
        """
        task = episode.without_nan(
            self._one_task(support_x, support_y, support_weight)
        )
        x = tf.nest.map_structure(lambda leaf: leaf[None], task)
        weights = self._weights(
            *self._shared(), self._generate(x, training=False)[0]
        )
        state = inner_loop.network_state(self.network)
        return network_copy.copy_network(
            self.network, task, weights, state, self.normalization_statistics
        )

    def _shared(self):
        """Returns the weights that tasks share, and the factors of some."""
        factors = [tf.convert_to_tensor(f) for f in self.left_factors]
        return inner_loop.network_weights(self.network), factors

    def _mapping(self):
        return task_mapping_module.resolve(self.task_mapping, self.network)

    def _example_size(self):
        if self.encoder is not None:
            return dense_heads.embedding_size(self.encoder)
        inputs = None
        if hasattr(self.network, "inputs"):
            inputs, _ = dense_heads.ends(self.network)
        shape = getattr(inputs, "shape", (None, None))[1:]
        if None in shape:
            raise ValueError(
                "Without an `encoder` the network must have one input of a "
                f"known shape. Received: inputs {inputs}. Give an encoder."
            )
        return math.prod(shape)

    def _generate(self, x, training):
        """Returns the numbers that are generated, `[tasks, count]`."""
        support_x = x[episode.SUPPORT_X]
        tasks, supports = (
            tf.shape(tf.nest.flatten(support_x)[0])[axis] for axis in (0, 1)
        )
        examples = tf.nest.map_structure(
            lambda leaf: tf.reshape(leaf, [-1, *leaf.shape[2:]]), support_x
        )
        if self.encoder is not None:
            examples = self.encoder(examples, training=training)
        dtype = self.variable_dtype
        embeddings = tf.reshape(
            tf.cast(examples, dtype), [tasks, supports, self._example_size()]
        )
        labels = x[episode.SUPPORT_Y]
        if not self.regression:
            labels = tf.one_hot(tf.cast(labels, "int32"), self.outputs)
        weight = x.get(episode.SUPPORT_WEIGHT)
        if weight is None:
            weight = tf.ones([tasks, supports], dtype)
        pairs = tf.concat([embeddings, tf.cast(labels, dtype)], axis=-1)
        weight = tf.cast(weight, dtype)
        codes = weighted_mean(self.pairs(pairs), weight)
        return self.generator(tf.nn.relu(codes))

    def _weights(self, shared, factors, generated):
        """Returns the weights of the network for one task."""
        weights = list(shared)
        factors = list(factors)
        start = 0
        for part in self._parts:
            numbers = generated[start : start + part.count]
            start += part.count
            weight = weights[part.place]
            shape = weight.shape
            if part.kind == "film":
                factors_of_outputs = tf.reshape(1.0 + numbers, part.shape)
                weights[part.place] = weight * factors_of_outputs
            elif part.kind == "low_rank":
                left, factor = part.shape, factors.pop(0)
                middle = math.prod(left)
                factor += tf.reshape(numbers[:middle], left)
                right = tf.reshape(numbers[middle:], [left[1], shape[-1]])
                change = tf.matmul(factor, right)
                weights[part.place] = weight + tf.reshape(change, shape)
            else:
                weights[part.place] = weight + tf.reshape(numbers, shape)
        return weights

    def _check_batch(self, x, y=None, sample_weight=None):
        super()._check_batch(x, y, sample_weight)
        if self.normalization_statistics == "frozen":
            normalization.check_frozen_statistics(self.network)
        self._check_statistics(x)

    def _check_statistics(self, x):
        statistics = self.normalization_statistics
        used = {"batch": [episode.QUERY_X], "support": [episode.SUPPORT_X]}
        normalization.check_example_counts(
            self.network,
            statistics,
            {key: x[key] for key in used.get(statistics, [])},
        )

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "regression": self.regression,
            "generates": self.generates,
            "rank": self.rank,
            "hidden_units": self.hidden_units,
            "code_size": self.code_size,
            "normalization_statistics": self.normalization_statistics,
            "task_mapping": self.task_mapping,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["encoder"] = keras.saving.deserialize_keras_object(
            config["encoder"]
        )
        return super().from_config(config)


class _Part:
    """What is generated for one weight of the network."""

    def __init__(self, place, kind, count, shape=None):
        self.place = place
        self.kind = kind
        self.count = count
        # That of the factors, or of the left one of two matrices.
        self.shape = shape


def _parts(network, generates, rank):
    chosen = adapting_weights.mask(
        network, "head" if generates == "head" else "all"
    )
    # The outputs of a depthwise convolution are the last two axes.
    depthwise = {
        id(layer.kernel)
        for layer in network._flatten_layers()
        if isinstance(
            layer,
            (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
        )
    }
    parts = []
    for place, variable in enumerate(network.trainable_variables):
        shape = variable.shape
        size = math.prod(shape)
        is_matrix = len(shape) > 1
        if not chosen[place]:
            continue
        left = (math.prod(shape[:-1]), min(rank, shape[-1]))
        low_rank = math.prod(left) + left[1] * shape[-1]
        if generates == "film" and is_matrix:
            outputs = shape[-2:] if id(variable) in depthwise else shape[-1:]
            count = math.prod(outputs)
            parts.append(_Part(place, "film", count, outputs))
        elif generates == "low_rank" and is_matrix and low_rank < size:
            parts.append(_Part(place, "low_rank", low_rank, left))
        else:
            parts.append(_Part(place, "all", size))
    return parts


def _check_count(network, generates, rank, code_size, count):
    if code_size * count <= _LARGEST_GENERATOR:
        return
    smaller = {
        f"generates='low_rank', rank={rank}": ("low_rank", rank),
        "generates='film'": ("film", rank),
        "generates='head'": ("head", rank),
    }
    counts = [
        f"{setting} would generate "
        f"{sum(part.count for part in _parts(network, *choice)):,}"
        for setting, choice in smaller.items()
    ]
    raise ValueError(
        "The network must not have more weights than a layer can generate "
        f"from codes of size {code_size}. Received: generates={generates!r} "
        f"and a network for which {count:,} numbers would be generated, by a "
        f"layer of {code_size * count:,} weights. Of the same network, "
        f"{'; '.join(counts)}."
    )
