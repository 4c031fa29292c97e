import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import backbones
from keras_meta import compiled_dense
from keras_meta import inner_loop
from keras_meta import xla

# Examples, inputs, outputs: also vectors, which are not transposed.
SHAPES = [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (3, 1, 1)]
TASKS = 6


def matrices(shape):
    generator = np.random.default_rng(0)
    examples, inputs, outputs = shape
    sizes = ((TASKS, examples, inputs), (TASKS, inputs, outputs))
    return [generator.normal(size=size).astype("float32") for size in sizes]


def derivatives(matmul):
    """Returns a function to a product and its derivatives of three orders."""

    def of_task(task):
        sources = list(task)
        results = []

        def join(tensors):
            return tf.add_n([tf.reduce_sum(tf.sin(part)) for part in tensors])

        def derive(order):
            if order == 0:
                results.append(matmul(*sources))
                return results[-1:]
            with tf.GradientTape() as tape:
                tape.watch(sources)
                value = join(derive(order - 1))
            results.extend(gradients := tape.gradient(value, sources))
            return gradients

        derive(3)
        return results

    return of_task


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_of_three_orders_are_those_of_a_product(shape):
    tasks = matrices(shape)

    @tf.function(autograph=False, jit_compile=True)
    def compiled(*tasks):
        function = derivatives(compiled_dense.matmul)
        return tf.vectorized_map(function, tasks)

    results = compiled(*tasks)
    assert len(results) == 7
    for number in range(TASKS):
        task = [tf.constant(leaf[number], "float64") for leaf in tasks]
        expected = derivatives(tf.matmul)(task)
        for one, other in zip(results, expected):
            np.testing.assert_allclose(one[number], other, rtol=1e-4, atol=1e-4)


def products_of_kernels(program, *arguments):
    """The products in the program of XLA that have the shape of kernels."""
    text = program.experimental_get_compiler_ir(*arguments)("optimized_hlo")
    start = f"f32[{TASKS},8,9]"
    return [
        line
        for line in text.split("\n")
        if " dot(" in line and line.split(" = ")[1].startswith(start)
    ]


@pytest.mark.parametrize(
    "matmul, contracted",
    [(tf.matmul, 1), (compiled_dense.matmul, 2)],
    ids=["TensorFlow's", "ours"],
)
def test_xla_multiplies_with_a_transposed_copy(matmul, contracted):
    # Where the first fails, XLA has learned it, and this module can go.
    @tf.function(autograph=False, jit_compile=True)
    def gradients(x, kernels):
        def of_task(task):
            x, kernel = task
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                value = tf.reduce_sum(tf.nn.relu(matmul(x, kernel)) ** 2)
            return tape.gradient(value, kernel)

        return tf.vectorized_map(of_task, (x, kernels))

    tensors = [tf.constant(matrix) for matrix in matrices((4, 8, 9))]
    products = products_of_kernels(gradients, *tensors)
    assert products
    for line in products:
        assert f"lhs_contracting_dims={{{contracted}}}" in line


class OwnDense(keras.layers.Dense):
    def call(self, inputs):
        return super().call(inputs) + 1.0


def networks():
    layers = keras.layers
    return [
        keras.Sequential([keras.Input((3,)), *stack])
        for stack in (
            [layers.Dense(4, activation="tanh"), layers.Dense(2)],
            [layers.Dense(4, use_bias=False), OwnDense(2)],
            # Rank 3, and half precision within.
            [layers.Reshape((3, 1)), layers.Dense(4), layers.Flatten()],
            [layers.Dense(4, dtype="mixed_bfloat16"), layers.Dense(2)],
        )
    ]


@pytest.mark.parametrize("network", networks())
def test_layers_answer_as_ever(network, monkeypatch):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    weights = inner_loop.network_weights(network)
    taken = []
    matmul = compiled_dense.matmul
    monkeypatch.setattr(
        compiled_dense, "matmul", lambda *a: taken.append(a) or matmul(*a)
    )

    def answer():
        return inner_loop.forward(network, weights, [], x, True, False)[0]

    expected = answer()
    assert not taken
    np.testing.assert_allclose(
        tf.function(xla.compiled(answer), jit_compile=True)(),
        expected,
        rtol=1e-5,
        atol=1e-6,
    )
    ordinary = [
        layer
        for layer in network.layers
        if type(layer) is keras.layers.Dense
        and not isinstance(network.layers[0], keras.layers.Reshape)
    ]
    assert len(taken) == len(ordinary)
    assert not any("call" in vars(layer) for layer in network.layers)


def test_layers_are_given_back_after_an_error():
    network = backbones.mlp()

    @xla.compiled
    def fail():
        with compiled_dense.fast_layers(network):
            assert "call" in vars(network.layers[-1])
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert not any("call" in vars(layer) for layer in network.layers)
    with compiled_dense.fast_layers(network):
        assert not any("call" in vars(layer) for layer in network.layers)
