"""Distances between embeddings, safe to differentiate where they are zero.

Each function takes queries `[..., queries, size]` and references
`[..., references, size]` and returns the distances of all pairs,
`[..., queries, references]`.
"""

import inspect

import keras
import tensorflow as tf

__all__ = ["LearnedDistance", "cosine", "euclidean", "squared_euclidean"]

# Below this squared length a vector counts as zero: its direction, and the
# slope of its length, do not exist, and are taken to be zero.
_SMALLEST = 1e-12


def squared_euclidean(queries, references):
    """Returns the squared Euclidean distances of all pairs.

    Args:
        queries: Tensor `[..., queries, size]`.
        references: Tensor `[..., references, size]`.

    Returns:
        Tensor `[..., queries, references]`, not negative.

    Example:

    ```python
    x = np.array([[0.0, 0.0], [3.0, 4.0]], "float32")
    keras_meta.distances.squared_euclidean(x, x)  # [[0, 25], [25, 0]]
    ```
    """
    queries, references = _tensors(queries, references)
    # One matrix product, where all differences would take as many times the
    # memory as an embedding has numbers.
    products = tf.matmul(queries, references, transpose_b=True)
    squares = tf.reduce_sum(tf.square(queries), axis=-1)[..., :, None]
    other_squares = tf.reduce_sum(tf.square(references), axis=-1)[..., None, :]
    # Rounding could take it below zero where two embeddings coincide.
    return tf.maximum(squares + other_squares - 2.0 * products, 0.0)


def euclidean(queries, references):
    """Returns the Euclidean distances of all pairs.

    Args:
        queries: Tensor `[..., queries, size]`.
        references: Tensor `[..., references, size]`.

    Returns:
        Tensor `[..., queries, references]`, not negative. Where it is zero,
        so is its gradient.

    Example:

    ```python
    x = np.array([[0.0, 0.0], [3.0, 4.0]], "float32")
    keras_meta.distances.euclidean(x, x)  # [[0, 5], [5, 0]]
    ```
    """
    return _safe_sqrt(squared_euclidean(queries, references))


def cosine(queries, references):
    """Returns one minus the cosine of the angle, for all pairs.

    Args:
        queries: Tensor `[..., queries, size]`.
        references: Tensor `[..., references, size]`.

    Returns:
        Tensor `[..., queries, references]`, from 0 (the same direction) to
        2 (the opposite one). A vector of length zero is at distance 1 from
        all others, with a gradient of zero.

    Example:

    ```python
    x = np.array([[1.0, 0.0], [0.0, 2.0]], "float32")
    keras_meta.distances.cosine(x, x)  # [[0, 1], [1, 0]]
    ```
    """
    queries, references = _tensors(queries, references)
    return 1.0 - tf.matmul(
        _directions(queries), _directions(references), transpose_b=True
    )


@keras.saving.register_keras_serializable(package="keras_meta")
class LearnedDistance(keras.layers.Layer):
    """A squared Euclidean distance with a learned weight per feature.

    The weights are positive (a softplus) and start at 1, where the distance
    is `keras_meta.distances.squared_euclidean()`.

    Args:
        size: Integer, the size of the embeddings.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Example:

    ```python
    distance = keras_meta.distances.LearnedDistance(size=64)
    x = np.random.normal(size=(3, 64)).astype("float32")
    distance(x, x).shape  # (3, 3)
    ```
    """

    def __init__(self, size, **kwargs):
        if kwargs.get("dtype") is None:
            # Squares overflow in half precision, also in mixed precision.
            kwargs["dtype"] = keras.config.dtype_policy().variable_dtype
        super().__init__(**kwargs)
        self.size = size
        self.raw_weights = self.add_weight(
            shape=(size,),
            # The softplus of this is 1.
            initializer=keras.initializers.Constant(0.5413248546),
            name="raw_weights",
        )
        self.built = True

    def call(self, queries, references):
        scales = tf.sqrt(tf.nn.softplus(self.raw_weights))
        return squared_euclidean(queries * scales, references * scales)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


_BY_NAME = {
    "squared_euclidean": squared_euclidean,
    "euclidean": euclidean,
    "cosine": cosine,
}


def get(distance):
    """Returns the distance of a name; a function or a layer is given back.

    Args:
        distance: One of `"squared_euclidean"`, `"euclidean"`, `"cosine"`, or
            a function or layer `(queries, references)`; or what
            `serialize()` made of one, as a configuration has it.

    Returns:
        A function or layer.

    Raises:
        ValueError: Where there is no distance of that name.
        TypeError: Where it is something else, which could not be saved.
    """
    if isinstance(distance, dict):
        distance = keras.saving.deserialize_keras_object(distance)
    is_layer = isinstance(distance, keras.layers.Layer)
    if is_layer or inspect.isfunction(distance):
        return distance
    if not isinstance(distance, str):
        raise TypeError(
            "`distance` must be a name, a function or a layer, so that it can "
            f"be saved. Received: distance={distance!r} of type "
            f"{type(distance).__name__}. Write it as a function `(queries, "
            "references)`."
        )
    if distance not in _BY_NAME:
        raise ValueError(
            "`distance` must be a function, a layer, or one of "
            f"{', '.join(map(repr, _BY_NAME))}. Received: "
            f"distance={distance!r}."
        )
    return _BY_NAME[distance]


def serialize(distance):
    """Returns what `get_config()` keeps of a distance."""
    for name, function in _BY_NAME.items():
        if distance is function:
            return name
    return keras.saving.serialize_keras_object(distance)


def deserialize(config):
    """Returns the distance that `serialize()` described."""
    return get(config)


def _tensors(queries, references):
    queries = tf.convert_to_tensor(queries)
    references = tf.convert_to_tensor(references, queries.dtype)
    return queries, references


def _safe_sqrt(values):
    # `sqrt` of a value below is never taken, not even by the gradient.
    positive = values > _SMALLEST
    return tf.where(positive, tf.sqrt(tf.where(positive, values, 1.0)), 0.0)


def _directions(vectors):
    squares = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    positive = squares > _SMALLEST
    lengths = tf.sqrt(tf.where(positive, squares, 1.0))
    return tf.where(positive, vectors / lengths, 0.0)
