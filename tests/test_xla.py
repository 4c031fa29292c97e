import importlib
import inspect
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import xla
from tests.algorithms import contract


def second_order_through_a_slice(x):
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(tf.slice(x**3, [1], [2]) ** 2)
        gradient = inner.gradient(y, x)
        z = tf.reduce_sum(gradient**2)
    return outer.gradient(z, x)


def test_second_order_through_slices_under_xla():
    x = tf.constant([1.0, 2.0, 3.0, 4.0])
    compiled = tf.function(
        second_order_through_a_slice, jit_compile=True, autograph=False
    )
    # y = x^6 on the slice, so that z = 36 x^10 and its gradient 360 x^9.
    expected = [0.0, 360 * 2.0**9, 360 * 3.0**9, 0.0]
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-5)
    np.testing.assert_allclose(
        second_order_through_a_slice(x), expected, rtol=1e-5
    )


def test_registering_twice_does_no_harm():
    xla.register_slice_gradient()
    xla.register_vectorized_barrier()


def outer_gradient(between, steps):
    """Returns a function to the outer gradient of steps of a small network."""

    def descend(weights, x):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            hidden = tf.tanh(tf.matmul(x, weights[0]))
            loss = tf.reduce_sum(tf.matmul(hidden, weights[1]) ** 2)
        return [
            between(weight - 0.01 * gradient)
            for weight, gradient in zip(weights, tape.gradient(loss, weights))
        ]

    def of_task(task):
        x, *start = task
        with tf.GradientTape() as tape:
            tape.watch(start)
            weights = start
            for _ in range(steps):
                weights = descend(weights, x)
            loss = tf.add_n([tf.reduce_sum(part**3) for part in weights])
        return tape.gradient(loss, start)

    return lambda *tasks: tf.vectorized_map(of_task, tasks)


TASKS = [
    np.random.default_rng(0).normal(size=shape).astype("float32")
    for shape in ((3, 4, 5), (3, 5, 6), (3, 6, 7))
]


@pytest.mark.parametrize(
    "between, at_most",
    [(tf.identity, None), (xla.summed_once, 3)],
    ids=["TensorFlow's", "ours"],
)
def test_xla_sums_gradients_of_many_steps_once(between, at_most):
    # Where the first fails, XLA has learned it, and `summed_once()` can go.
    program = tf.function(
        outer_gradient(between, 8), jit_compile=True, autograph=False
    )
    text = program.experimental_get_compiler_ir(*TASKS)("optimized_hlo")
    products = [
        line.split("fusion(")[1].split(")")[0].count("%MatMul")
        for line in text.split("\n")
        if re.search(r" = f32\[3,(5,6|6,7)\].* fusion\(", line)
    ]
    if at_most is None:
        assert max(products) >= 8
    else:
        assert max(products) <= at_most


def test_what_is_summed_once_is_the_same():
    program = tf.function(
        outer_gradient(xla.summed_once, 3), jit_compile=True, autograph=False
    )
    expected = outer_gradient(tf.identity, 3)(
        *[tf.constant(leaf, "float64") for leaf in TASKS]
    )
    for one, other in zip(program(*TASKS), expected):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"steps_per_execution": 10}, True),
        ({}, False),
        ({"steps_per_execution": 10, "jit_compile": False}, False),
        ({"steps_per_execution": 10, "run_eagerly": True}, False),
        ({"jit_compile": True}, True),
    ],
)
def test_auto_is_xla_for_many_steps_of_dense_networks(settings, expected):
    for inner_steps in (1, 32):
        model = keras_meta.MAML(keras_meta.backbones.mlp(), inner_steps, 0.1)
        model.compile("adam", "mse", **settings)
        assert model.jit_compile is expected


def test_auto_is_not_xla_where_that_is_slow():
    network = keras_meta.backbones.conv4((8, 8, 1), outputs=2, filters=4)
    for model in (
        keras_meta.MAML(network, 1, 0.1),
        keras_meta.MAML(keras_meta.backbones.mlp(), 33, 0.1),
    ):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, steps_per_execution=10)
        assert model.jit_compile is False


def test_auto_is_xla_however_tasks_are_mapped():
    for mapping in ("vectorized", "sequential"):
        network = keras_meta.backbones.mlp()
        model = keras_meta.MAML(network, 1, 0.1, task_mapping=mapping)
        model.compile("adam", "mse", steps_per_execution=10)
        assert model.jit_compile is True


def test_what_is_compiled_is_marked_while_it_is_traced(monkeypatch):
    @xla.compiled
    def marked(fails):
        """Told."""
        if fails:
            raise RuntimeError("on purpose")
        return xla.compiles_for_cpu()

    assert marked.__doc__ == "Told."
    assert not xla.compiles_for_cpu()
    assert marked(False)
    with pytest.raises(RuntimeError, match="on purpose"):
        marked(True)
    assert not xla.compiles_for_cpu()
    # There, products are a library's.
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert not marked(False)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_step_of_a_model_is_marked(steps):
    marks = []

    class Model(keras_meta.MAML):
        def train_step(self, data):
            marks.append(xla.compiles_for_cpu())
            return super().train_step(data)

    episodes = keras_meta.episodes.sinusoids(
        shots=2, queries=2, meta_batch_size=2, episodes=10
    )
    for jit_compile in (True, False):
        model = Model(keras_meta.backbones.mlp((1,), (3,)), 1, 0.1)
        model.compile(
            "adam", "mse", jit_compile=jit_compile, steps_per_execution=steps
        )
        marks.clear()
        model.fit(episodes, verbose=0)
        assert marks and set(marks) == {jit_compile}


def compared_models():
    """Yields what the contract compares with XLA and without."""
    folder = pathlib.Path(contract.__file__).parent
    for path in sorted(folder.glob("test_*.py")):
        module = importlib.import_module(f"tests.algorithms.{path.stem}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, contract.VariantContract):
                if cls.__module__ == module.__name__:
                    assert dict(jit_compile=True) in cls.ways_to_run
                    yield cls().make_model()


def test_training_steps_of_every_algorithm_are_compared_with_xla():
    compared = {type(model) for model in compared_models()}
    public = {
        value
        for name, value in vars(keras_meta).items()
        if inspect.isclass(value)
        and issubclass(value, keras_meta.EpisodicModel)
        and value is not keras_meta.EpisodicModel
    }
    assert public and not public - compared


@pytest.mark.parametrize(
    "make",
    [
        lambda network: keras_meta.MAML(
            network, inner_learning_rate=0.1, normalization_statistics="support"
        ),
        lambda network: keras_meta.Reptile(network, inner_steps=2),
        lambda network: keras_meta.PrototypicalNetwork(network, ways=3),
    ],
    ids=["MAML", "Reptile", "PrototypicalNetwork"],
)
def test_convolutions_and_batch_normalization_under_xla(make):
    # The contract has dense layers alone.
    generator = np.random.default_rng(0)
    x = {
        "support_x": generator.normal(size=(2, 6, 4, 4, 1)).astype("float32"),
        "support_y": np.tile(np.arange(3).repeat(2), (2, 1)),
        "query_x": generator.normal(size=(2, 3, 4, 4, 1)).astype("float32"),
    }
    y = np.tile(np.arange(3), (2, 1))
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        inputs = outputs = keras.Input((4, 4, 1))
        for layer in (
            keras.layers.Conv2D(2, 3, strides=2, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ):
            outputs = layer(outputs)
        model = make(keras.Model(inputs, outputs))
        model.compile(
            keras.optimizers.SGD(0.1),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile,
        )
        assert model.jit_compile is jit_compile
        loss = model.train_on_batch(x, y)
        results.append((loss, model.get_weights()))
    for one, other in zip(*map(tf.nest.flatten, results)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
