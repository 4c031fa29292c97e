import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import backbones
from keras_meta import task_mapping
from keras_meta import xla

MAPPINGS = ["vectorized", "sequential"]


def network_of(*layers, shape=(6, 6, 2)):
    return keras.Sequential([keras.Input(shape), *layers])


def resolve(network):
    return task_mapping.resolve("auto", network)


def test_dense_networks_run_vectorized():
    layers = keras.layers
    networks = [
        backbones.mlp(),
        backbones.mlp((4, 4), (3,), None, activation="tanh"),
        network_of(
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(4),
            layers.LayerNormalization(),
            layers.LeakyReLU(),
            layers.Dense(4, activation="elu"),
            layers.Reshape((2, 2)),
            layers.Activation("tanh"),
            layers.ReLU(),
            layers.ELU(),
            layers.Softmax(),
        ),
    ]
    for network in networks:
        assert resolve(network) == "vectorized"


def test_networks_with_other_layers_run_one_by_one():
    layers = keras.layers
    networks = [
        backbones.conv4(outputs=5, filters=4),
        network_of(layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)),
        network_of(layers.Dense(2), layers.Dropout(0.5)),
        network_of(layers.Dense(2), layers.BatchNormalization()),
        network_of(layers.Embedding(7, 3), layers.Dense(2), shape=(5,)),
        network_of(layers.LSTM(3, use_cudnn=False), shape=(5, 2)),
        network_of(layers.SimpleRNN(3), layers.Dense(2), shape=(5, 2)),
    ]
    for network in networks:
        assert resolve(network) == "sequential"


def test_wide_dense_networks_run_one_by_one_on_a_cpu(monkeypatch):
    devices = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: devices)
    for units, expected in ((384, "vectorized"), (512, "sequential")):
        network = backbones.mlp((1,), (units, units))
        assert task_mapping.is_dense(network)
        assert resolve(network) == expected
    devices.append("a GPU")
    assert resolve(network) == "vectorized"


def test_an_unknown_layer_runs_one_by_one():
    class Scale(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    network = network_of(keras.layers.Dense(2), Scale())
    assert resolve(network) == "sequential"


def test_models_inside_of_models_are_looked_into():
    dense = keras.Sequential([keras.layers.Dense(3), keras.layers.ReLU()])
    convolution = keras.Sequential([keras.layers.Conv2D(3, 3)])
    inputs = keras.Input((6, 6, 2))

    def nested(inner):
        outer = keras.Sequential([inner, keras.layers.Flatten()])
        return keras.Model(inputs, keras.layers.Dense(2)(outer(inputs)))

    assert resolve(nested(dense)) == "vectorized"
    assert resolve(nested(convolution)) == "sequential"


def test_subclassed_models_are_looked_into():
    class Network(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.head = keras.layers.Dense(2)

        def call(self, x):
            return self.head(self.inner(x))

    for inner, expected in (
        (keras.layers.Dense(3), "vectorized"),
        (keras.Sequential([keras.layers.Dense(3)]), "vectorized"),
        (keras.layers.Conv2D(3, 3), "sequential"),
        (keras.Sequential([keras.layers.Dropout(0.5)]), "sequential"),
    ):
        network = Network(inner)
        network(np.zeros((1, 6, 6, 2), "float32"))
        assert resolve(network) == expected


def test_a_mapping_that_is_given_is_taken():
    for network in (backbones.mlp(), backbones.conv4(filters=2)):
        for mapping in MAPPINGS:
            assert task_mapping.resolve(mapping, network) == mapping
    assert set(task_mapping.CHOICES) == {"auto", *MAPPINGS}


def tasks():
    generator = np.random.default_rng(0)
    return {
        "a": generator.normal(size=(3, 4, 2)).astype("float32"),
        "more": [
            generator.integers(-9, 9, size=(3, 5)),
            (generator.normal(size=(3,)), generator.uniform(size=(3, 2)) < 0.5),
        ],
    }


def answer(task):
    """Shapes and dtypes that differ from each other and from the inputs."""
    integers, (number, flags) = task["more"]
    return {
        "product": tf.linalg.matmul(task["a"], task["a"], transpose_b=True),
        "list": [tf.reduce_sum(integers), tf.sort(integers)[-2:]],
        "tuple": (number > 0, tf.cast(flags, "int32") * 2),
        "half": tf.cast(number, "float16"),
        "constant": tf.constant([1, 2, 3], "uint8"),
    }


def expected_answers():
    x = tasks()
    integers, (number, flags) = x["more"]
    return {
        "product": x["a"] @ x["a"].swapaxes(1, 2),
        "list": [integers.sum(axis=1), np.sort(integers, axis=1)[:, -2:]],
        "tuple": (number > 0, flags.astype("int32") * 2),
        "half": number.astype("float16"),
        "constant": np.tile(np.array([1, 2, 3], "uint8"), (3, 1)),
    }


def check_answers(found):
    expected = expected_answers()
    tf.nest.assert_same_structure(found, expected)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected)):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert np.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_tasks_are_mapped_eagerly(mapping):
    inputs = tf.nest.map_structure(tf.constant, tasks())
    check_answers(task_mapping.map_tasks(answer, inputs, mapping))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_tasks_are_mapped_in_a_graph(mapping):
    @tf.function
    def in_graph(inputs):
        return task_mapping.map_tasks(answer, inputs, mapping)

    check_answers(in_graph(tf.nest.map_structure(tf.constant, tasks())))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_one_task_is_run_as_it_is(mapping):
    def ops_of(count):
        @tf.function
        def in_graph(x):
            return task_mapping.map_tasks(tf.cumsum, x, mapping)

        x = np.ones((count, 3), "float32")
        found = in_graph(x)
        assert found.shape == (count, 3)
        assert np.allclose(found, x.cumsum(axis=1))
        return {
            operation.type
            for operation in in_graph.get_concrete_function(
                x
            ).graph.get_operations()
        }

    # What loops, or is batched, is there for more than one task only.
    assert len(ops_of(1)) < len(ops_of(2))
    assert not any("While" in name for name in ops_of(1))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_any_number_of_tasks_is_mapped_by_one_graph(mapping):
    @tf.function(input_signature=[tf.TensorSpec((None, None), "float32")])
    def in_graph(x):
        return task_mapping.map_tasks(tf.reduce_sum, x, mapping)

    for shape in ((1, 3), (4, 2), (7, 1)):
        x = np.random.default_rng(0).normal(size=shape).astype("float32")
        assert np.allclose(in_graph(x), x.sum(axis=1), atol=1e-5)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_single_task_beside_others_has_a_graph_of_its_own(mapping):
    traced = []

    def noted_answer(task):
        traced.append(task)
        return answer(task)

    function = tf.function(
        lambda x: task_mapping.map_one_or_more(noted_answer, x, mapping),
        input_signature=[
            tf.nest.map_structure(
                lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype),
                tasks(),
            )
        ],
        autograph=False,
    )
    for count in (1, 3):
        some, expected = tf.nest.map_structure(
            lambda leaf: leaf[:count], (tasks(), expected_answers())
        )
        tf.nest.map_structure(
            lambda leaf, value: np.testing.assert_allclose(
                leaf, value, rtol=1e-3
            ),
            function(some),
            expected,
        )
    assert len(traced) == {"vectorized": 2, "sequential": 1}[mapping]


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_gradients_of_what_is_around_pass_through_the_map(mapping):
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")

    def gradient(weight):
        with tf.GradientTape() as tape:
            tape.watch(weight)
            values = task_mapping.map_tasks(
                lambda task: tf.reduce_sum(tf.sin(task * weight)),
                tf.constant(x),
                mapping,
            )
            total = tf.reduce_sum(values**2)
        return tape.gradient(total, weight)

    # d/dw of the sum over tasks of (sum_i sin(w x_i))^2.
    sums = np.sin(0.3 * x).sum(axis=1)
    expected = np.sum(2 * sums * (x * np.cos(0.3 * x)).sum(axis=1))
    weight = tf.constant(0.3)
    for function in (gradient, tf.function(gradient)):
        assert float(function(weight)) == pytest.approx(expected, rel=1e-4)


def test_one_by_one_runs_python_step_by_step_when_eager():
    # So that a debugger sees the numbers of each task.
    seen = []

    def look(task):
        seen.append(float(task))
        return task

    task_mapping.map_tasks(look, tf.constant([3.0, 1.0, 2.0]), "sequential")
    assert seen == [3.0, 1.0, 2.0]


def test_one_by_one_traces_a_task_once_for_all_in_a_graph():
    calls = []

    def count(task):
        calls.append(task)
        return 2 * task

    @tf.function
    def in_graph(x):
        return task_mapping.map_tasks(count, x, "sequential")

    assert in_graph(tf.range(50)).numpy().tolist() == list(range(0, 100, 2))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "threads, intra_op_threads, tasks, expected",
    [
        (4, 4, 5, 4),
        (16, 0, 32, 10),
        (16, 1, 32, 16),
        # The last would be alone.
        (2, 1, 5, 3),
        (2, 1, 4, 2),
        (2, 1, None, 2),
    ],
)
def test_as_many_at_once_as_threads(
    monkeypatch, threads, intra_op_threads, tasks, expected
):
    threading = tf.config.threading
    for name, value in (("inter", threads), ("intra", intra_op_threads)):
        monkeypatch.setattr(
            threading,
            f"get_{name}_op_parallelism_threads",
            lambda value=value: value,
        )

    @tf.function
    def in_graph(x):
        return task_mapping.map_tasks(lambda task: task, x, "sequential")

    operations = in_graph.get_concrete_function(
        tf.TensorSpec([tasks], tf.int32)
    ).graph.as_graph_def()
    (loop,) = [node for node in operations.node if "While" in node.op]
    assert loop.attr["parallel_iterations"].i == expected


def compiled(function):
    return tf.function(xla.compiled(function), jit_compile=True)


@pytest.mark.parametrize("count", [2, 3, 16, 17])
def test_halves_give_what_all_tasks_do(count):
    x = np.random.default_rng(0).normal(size=(count, 2, 3)).astype("float32")
    tasks = {"x": x, "more": [np.arange(count, dtype="float32")]}

    def function(task):
        return {"sum": tf.reduce_sum(task["x"]) + task["more"][0], **task}

    results = compiled(task_mapping.map_halves)(function, tasks)
    np.testing.assert_allclose(
        results["sum"], x.sum((1, 2)) + np.arange(count), rtol=1e-5
    )
    np.testing.assert_array_equal(results["x"], x)
    np.testing.assert_array_equal(results["more"][0], tasks["more"][0])


def test_when_halves_are_faster(monkeypatch):
    def faster(count=16, mapping="vectorized"):
        return task_mapping.halves_are_faster([np.zeros((count, 2))], mapping)

    monkeypatch.setattr(task_mapping.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(task_mapping, "has_one_thread_each", lambda: False)
    # Without XLA, each operation has several threads.
    assert not faster()
    compiled = xla.compiled(faster)
    assert compiled()
    assert not compiled(15)
    assert not compiled(16, "sequential")
    monkeypatch.setattr(task_mapping, "has_one_thread_each", lambda: True)
    assert not compiled()
    monkeypatch.setattr(task_mapping, "has_one_thread_each", lambda: False)
    monkeypatch.setattr(task_mapping.os, "cpu_count", lambda: 1)
    assert not compiled()


@pytest.fixture
def halves(monkeypatch):
    """The calls of `map_halves()`, which two cores make worth the while."""
    monkeypatch.setattr(task_mapping.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(task_mapping, "has_one_thread_each", lambda: False)
    halves = []
    map_halves = task_mapping.map_halves
    monkeypatch.setattr(
        task_mapping,
        "map_halves",
        lambda *a: halves.append(a) or map_halves(*a),
    )
    return halves


def test_loops_of_inner_steps_are_not_parted_in_halves(halves):
    episodes = keras_meta.episodes.sinusoids(
        shots=3, queries=2, meta_batch_size=16, episodes=16
    )
    for inner_steps in (2, 11):
        model = keras_meta.Reptile(backbones.mlp((1,), (4,)), inner_steps, 0.05)
        model.compile("sgd", "mse", jit_compile=True)
        model.fit(episodes, verbose=0)
        assert bool(halves) == (inner_steps == 2)
        halves.clear()


def test_training_in_halves_is_training(halves):
    episodes = keras_meta.episodes.sinusoids(
        shots=3, queries=2, meta_batch_size=17, episodes=85
    )
    trained = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        network = backbones.mlp((1,), (4,))
        model = keras_meta.MAML(network, 2, 0.05)
        model.compile(
            "adam", "mse", jit_compile=jit_compile, steps_per_execution=5
        )
        history = model.fit(episodes, verbose=0).history
        trained.append((model.get_weights(), history))
        assert bool(halves) == jit_compile
    (weights, history), (weights_in_halves, history_in_halves) = trained
    for one, other in zip(weights_in_halves, weights):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    for name, values in history.items():
        np.testing.assert_allclose(history_in_halves[name], values, rtol=1e-4)
