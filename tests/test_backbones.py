import inspect

import keras
import numpy as np
import pytest

from keras_meta import backbones


def count_parameters(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def conv4_parameters(channels, filters, features, outputs):
    """Kernels, and scale and shift of the normalization."""
    first = 9 * channels * filters + 2 * filters
    others = 3 * (9 * filters * filters + 2 * filters)
    head = 0 if outputs is None else (features + 1) * outputs
    return first + others + head


def test_conv4_on_omniglot_has_the_parameters_counted_by_hand():
    # 576 + 3 * 36,864 for the convolutions, 4 * 128 for the normalization,
    # and 65 * 5 for what is left of 28 by 28 after four poolings: 1 by 1.
    assert conv4_parameters(1, 64, 64, 5) == 112005
    network = backbones.conv4(outputs=5)
    assert count_parameters(network) == 112005
    assert network.count_params() == 112005 + 4 * 2 * 64
    assert network.output_shape == (None, 5)


def test_conv4_with_strides_has_the_parameters_counted_by_hand():
    # 28, 14, 7, 4, 2: four times as many features to the head.
    network = backbones.conv4(outputs=5, downsampling="strides")
    assert count_parameters(network) == 112005 - 65 * 5 + 257 * 5
    assert network.output_shape == (None, 5)


@pytest.mark.parametrize("downsampling", ["pooling", "strides"])
def test_conv4_has_the_size_that_is_left(downsampling):
    sides = {
        "pooling": {84: 5, 32: 2, 28: 1, 16: 1, 8: 1, 5: 1, 3: 1, 1: 1},
        "strides": {84: 6, 32: 2, 28: 2, 16: 1, 8: 1, 5: 1, 3: 1, 1: 1},
    }
    for side, left in sides[downsampling].items():
        network = backbones.conv4(
            (side, side, 3), filters=8, downsampling=downsampling
        )
        features = left * left * 8
        assert network.output_shape == (None, features)
        expected = conv4_parameters(3, 8, features, None)
        assert count_parameters(network) == expected
        images = np.random.default_rng(0).uniform(size=(2, side, side, 3))
        answers = network(images.astype("float32"))
        assert answers.shape == (2, features)
        assert np.all(np.isfinite(answers))


def test_conv4_on_miniimagenet_has_1600_features():
    network = backbones.conv4(input_shape=(84, 84, 3))
    assert network.output_shape == (None, 1600)
    network = backbones.conv4(input_shape=(84, 84, 3), outputs=5, filters=32)
    assert network.output_shape == (None, 5)
    assert count_parameters(network) == conv4_parameters(3, 32, 800, 5)


def test_conv4_takes_images_that_are_not_square():
    network = backbones.conv4((32, 64, 1), filters=4)
    assert network.output_shape == (None, 2 * 4 * 4)
    network = backbones.conv4((2, 64, 1), filters=4)
    answers = network(np.zeros((3, 2, 64, 1), "float32"))
    assert answers.shape == (3, network.output_shape[1])


def test_conv4_is_four_blocks_and_a_dense_layer():
    names = {
        "pooling": ["Conv2D", "BatchNormalization", "MaxPooling2D", "ReLU"],
        "strides": ["Conv2D", "BatchNormalization", "ReLU"],
    }
    for downsampling, block in names.items():
        network = backbones.conv4(outputs=5, downsampling=downsampling)
        found = [type(layer).__name__ for layer in network.layers]
        assert found == ["InputLayer", *block * 4, "Flatten", "Dense"]
        stride = 2 if downsampling == "strides" else 1
        for layer in network.layers:
            if isinstance(layer, keras.layers.Conv2D):
                assert layer.kernel_size == (3, 3)
                assert layer.strides == (stride, stride)
                assert layer.filters == 64
                assert layer.padding == "same"


@pytest.mark.parametrize("downsampling", ["pooling", "strides"])
def test_conv4_gives_feature_maps(downsampling):
    settings = dict(filters=8, downsampling=downsampling, flatten=False)
    for halvings, side in ((1, 14), (2, 7)):
        network = backbones.conv4(**settings, halvings=halvings)
        assert network.output_shape == (None, side, side, 8)
        expected = conv4_parameters(1, 8, None, None)
        assert count_parameters(network) == expected
        images = np.zeros((2, 28, 28, 1), "float32")
        assert network(images).shape == (2, side, side, 8)
    # Halvings are those of the first blocks.
    network = backbones.conv4((16, 16, 1), **settings, halvings=2)
    convolutions = [
        layer.output.shape[1]
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    expected = {"pooling": [16, 8, 4, 4], "strides": [8, 4, 4, 4]}
    assert convolutions == expected[downsampling]
    # What is flattened is the same maps.
    flat = backbones.conv4((16, 16, 1), outputs=5, filters=8, halvings=2)
    assert flat.layers[-1].kernel.shape == (4 * 4 * 8, 5)


def test_conv4_refuses_bad_maps():
    for bad in (0, 5, -1, "2", None):
        with pytest.raises(ValueError, match="`halvings` must be one of 1, 2"):
            backbones.conv4(halvings=bad)
    with pytest.raises(ValueError, match="`flatten` must be one of"):
        backbones.conv4(flatten="maps")
    with pytest.raises(ValueError, match="`outputs` must be None.*outputs=5"):
        backbones.conv4(flatten=False, outputs=5)


def test_conv4_gives_logits():
    # No activation: answers of both signs that do not sum to 1.
    network = backbones.conv4((8, 8, 1), outputs=5, filters=8)
    images = np.random.default_rng(0).normal(size=(20, 8, 8, 1))
    answers = network(images.astype("float32"), training=True).numpy()
    assert answers.min() < 0 < answers.max()
    # Without a dense layer it ends in ReLU and pooling.
    embedding = backbones.conv4((8, 8, 1), filters=8)
    answers = embedding(images.astype("float32"), training=True).numpy()
    assert answers.min() == 0 < answers.max()


def test_mlp_is_by_default_the_network_of_the_sinusoids():
    network = backbones.mlp()
    # 1-40-40-1: 40 + 40, 1600 + 40, 40 + 1.
    assert count_parameters(network) == 1761
    assert network.input_shape == (None, 1)
    assert network.output_shape == (None, 1)


def test_mlp_equals_numpy():
    network = backbones.mlp((3,), (5, 4), 2)
    assert [w.shape for w in network.get_weights()] == [
        (3, 5),
        (5,),
        (5, 4),
        (4,),
        (4, 2),
        (2,),
    ]
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=w.shape) for w in network.get_weights()]
    network.set_weights(weights)
    x = generator.normal(size=(7, 3))
    expected = np.maximum(x @ weights[0] + weights[1], 0)
    expected = np.maximum(expected @ weights[2] + weights[3], 0)
    expected = expected @ weights[4] + weights[5]
    assert np.allclose(network(x.astype("float32")), expected, atol=1e-5)


def test_mlp_takes_an_activation_and_no_hidden_layers():
    network = backbones.mlp((3,), [5], None, activation="tanh")
    x = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    kernel, _ = network.get_weights()
    assert network.output_shape == (None, 5)
    assert np.allclose(network(x), np.tanh(x @ kernel), atol=1e-5)
    network = backbones.mlp((3,), (), 2)
    assert count_parameters(network) == 3 * 2 + 2
    assert [type(layer).__name__ for layer in network.layers] == [
        "InputLayer",
        "Dense",
    ]


def test_mlp_flattens_what_has_more_axes():
    network = backbones.mlp((4, 4, 2), (5,), 3)
    assert network.input_shape == (None, 4, 4, 2)
    assert network.output_shape == (None, 3)
    assert count_parameters(network) == 33 * 5 + 6 * 3


def test_networks_are_built_and_named():
    for make in (backbones.conv4, backbones.mlp):
        assert make().built
        assert make().name == make.__name__
        assert make(name="mine").name == "mine"
        # The name comes last, so that it is given by keyword.
        assert list(inspect.signature(make).parameters)[-1] == "name"


def test_a_size_that_is_no_positive_integer_is_an_error():
    for bad in (0, -1, 2.5, "8"):
        for make, name in (
            (backbones.conv4, "filters"),
            (backbones.conv4, "outputs"),
            (backbones.mlp, "outputs"),
        ):
            match = f"`{name}` must be an integer of 1 or more. Received: "
            with pytest.raises(ValueError, match=match):
                make(**{name: bad})
        match = "`hidden_units` must be an integer of 1 or more. Received: hidd"
        with pytest.raises(ValueError, match=match):
            backbones.mlp(hidden_units=(40, bad))


def test_hidden_units_that_are_no_sequence_are_an_error():
    with pytest.raises((TypeError, ValueError), match="`hidden_units`.*Receiv"):
        backbones.mlp(hidden_units=40)


def test_an_unknown_downsampling_is_an_error():
    for bad in ("maxpool", None, 2):
        match = (
            "`downsampling` must be one of 'pooling', 'strides'. Received: "
            "downsampling="
        )
        with pytest.raises(ValueError, match=match):
            backbones.conv4(downsampling=bad)


def test_an_image_shape_without_channels_is_an_error():
    for bad in ((28, 28), (28,), (2, 28, 28, 1), ()):
        match = (
            r"`input_shape` must be `\(height, width, channels\)`. Received: "
            "input_shape=.*Add the channel to grey images"
        )
        with pytest.raises(ValueError, match=match):
            backbones.conv4(input_shape=bad)


def test_an_image_shape_that_is_not_of_integers_is_an_error():
    for bad in (28, None, (None, None, 1), (28, "28", 1), (0, 28, 1)):
        with pytest.raises((TypeError, ValueError), match="`input_shape`.*Rec"):
            backbones.conv4(input_shape=bad)
