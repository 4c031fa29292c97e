import keras

from keras_meta import arguments


def conv4(
    input_shape=(28, 28, 1),
    outputs=None,
    filters=64,
    downsampling="pooling",
    flatten=True,
    halvings=4,
    name="conv4",
):
    """The network of four convolutional blocks of the few-shot literature.

    Each block is a 3x3 convolution (without a bias, which the normalization
    would take away again), batch normalization, ReLU, and a halving of the
    size. What is left is flattened, and a dense layer without
    activation gives the outputs. Relation networks take the feature maps:
    `flatten=False, halvings=2`.

    Args:
        input_shape: Tuple of integers, the shape of one image, `(height,
            width, channels)`. Defaults to `(28, 28, 1)`.
        outputs: Integer, the size of the dense layer: the number of ways for
            MAML. `None` (the default) leaves the dense layer out, for
            embeddings.
        filters: Integer, the filters of each convolution. Defaults to `64`.
        downsampling: `"pooling"` (the default), 2x2 max pooling after the
            block as in prototypical networks, or `"strides"`, convolutions
            of stride 2 as in MAML's Omniglot network, which takes about a
            quarter of the arithmetic.
        flatten: Boolean. `False` leaves the feature maps as they are, and
            the dense layer out. Defaults to `True`.
        halvings: Integer from 1 to 4, how many of the blocks halve the size:
            the first ones. Defaults to `4`.
        name: String, the name of the model. Defaults to `"conv4"`.

    Returns:
        A `keras.Model` from images `[batch, height, width, channels]` to
        `[batch, outputs]`, to flat embeddings, or to feature maps
        `[batch, height, width, filters]`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    network = keras_meta.backbones.conv4(outputs=5)
    embedding = keras_meta.backbones.conv4(input_shape=(84, 84, 3))
    maps = keras_meta.backbones.conv4(flatten=False, halvings=2)
    ```

    Reference:
        - [Vinyals et al., 2016](https://arxiv.org/abs/1606.04080)
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
    """
    arguments.check_positive_integer("filters", filters)
    arguments.check_choice("downsampling", downsampling, ("pooling", "strides"))
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be `(height, width, channels)`. Received: "
            f"input_shape={input_shape}. Add the channel to grey images."
        )
    for size in input_shape:
        arguments.check_positive_integer("input_shape", size)
    arguments.check_choice("flatten", flatten, (True, False))
    arguments.check_choice("halvings", halvings, (1, 2, 3, 4))
    if outputs is not None and not flatten:
        raise ValueError(
            "`outputs` must be None where the feature maps are not flattened. "
            f"Received: outputs={outputs} and flatten=False."
        )
    x = inputs = keras.Input(input_shape)
    for block in range(4):
        halving = downsampling if block < halvings else None
        strides = 2 if halving == "strides" else 1
        x = keras.layers.Conv2D(
            filters, 3, strides=strides, padding="same", use_bias=False
        )(x)
        x = keras.layers.BatchNormalization()(x)
        # The largest of rectified numbers is the rectified largest one, of
        # which there are a quarter.
        if halving == "pooling":
            # Below 16 pixels there is nothing left to pool at the end.
            padding = "same" if min(x.shape[1:3]) < 2 else "valid"
            x = keras.layers.MaxPooling2D(2, padding=padding)(x)
        x = keras.layers.ReLU()(x)
    if flatten:
        x = keras.layers.Flatten()(x)
    if outputs is not None:
        arguments.check_positive_integer("outputs", outputs)
        x = keras.layers.Dense(outputs)(x)
    return keras.Model(inputs, x, name=name)


def mlp(
    input_shape=(1,),
    hidden_units=(40, 40),
    outputs=1,
    activation="relu",
    name="mlp",
):
    """A network of dense layers, by default the one of MAML's sinusoids.

    Args:
        input_shape: Tuple of integers, the shape of one example; flattened
            first where it has more than one axis. Defaults to `(1,)`.
        hidden_units: Sequence of integers, the sizes of the hidden layers.
            Defaults to `(40, 40)`.
        outputs: Integer, the size of the last layer, which has no
            activation. `None` leaves it out, for embeddings. Defaults to
            `1`.
        activation: The activation of the hidden layers. Defaults to
            `"relu"`.
        name: String, the name of the model. Defaults to `"mlp"`.

    Returns:
        A `keras.Model` from `[batch, ...]` to `[batch, outputs]`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    network = keras_meta.backbones.mlp(hidden_units=(40, 40), outputs=1)
    ```
    """
    arguments.check_units("hidden_units", hidden_units)
    x = inputs = keras.Input(input_shape)
    if len(input_shape) != 1:
        x = keras.layers.Flatten()(x)
    for units in hidden_units:
        x = keras.layers.Dense(units, activation=activation)(x)
    if outputs is not None:
        arguments.check_positive_integer("outputs", outputs)
        x = keras.layers.Dense(outputs)(x)
    return keras.Model(inputs, x, name=name)
