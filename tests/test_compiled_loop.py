import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import compiled_loop


def numbers(*shapes):
    return tf.data.Dataset.from_tensor_slices(
        tuple(np.arange(np.prod(s), dtype="float32").reshape(s) for s in shapes)
    )


def summing():
    """A step that adds up what it is given, and tells of it."""
    total = tf.Variable(0.0)

    def step(batch):
        x, y = batch
        total.assign_add(tf.reduce_sum(x) * y)
        return {"total": total.value(), "y": y}

    return step, total


def test_it_takes_all_steps_the_last_ones_too():
    step, total = summing()
    function = compiled_loop.make(step, 3)
    iterator = iter(numbers((5, 2), (5,)))
    assert compiled_loop.can_loop(iterator, 3)
    sums = np.cumsum([(4 * n + 1) * n for n in range(5)])
    logs = function(iterator)
    assert logs["total"] == total.numpy() == sums[2]
    assert logs["y"] == 2
    logs = function(iterator)
    assert logs["total"] == total.numpy() == sums[4]
    assert logs["y"] == 4
    with pytest.raises(StopIteration):
        function(iterator)
    assert total.numpy() == sums[4]


@pytest.mark.parametrize(
    "dataset",
    [
        numbers((5, 2)).batch(2),
        tf.data.Dataset.from_tensors(np.zeros(2**24, "float32")),
        tf.data.Dataset.from_tensors(tf.constant("text")),
        tf.data.Dataset.from_tensors(tf.ragged.constant([[1], [2, 3]])),
    ],
    ids=["last one smaller", "large", "text", "ragged"],
)
def test_what_it_cannot_loop_over_is_left_to_keras(dataset):
    assert not compiled_loop.can_loop(iter(dataset), 2)
    assert not compiled_loop.can_loop([np.zeros(3)], 2)


def trained(steps_per_execution, **settings):
    keras.utils.set_random_seed(0)
    model = keras_meta.MAML(
        keras_meta.backbones.mlp(hidden_units=(4,)), inner_learning_rate=0.1
    )
    model.compile(
        "adam", "mse", steps_per_execution=steps_per_execution, **settings
    )
    episodes = keras_meta.episodes.sinusoids(
        shots=3, queries=2, meta_batch_size=2, episodes=20
    )
    history = model.fit(episodes, epochs=2, verbose=0).history
    return model, history


def test_fit_gives_the_weights_and_the_logs_of_single_steps():
    model, history = trained(1, jit_compile=False)
    # Ten meta-batches: two executions of four, and one of two.
    looped, looped_history = trained(4, jit_compile=True)
    assert looped.optimizer.iterations == 20
    for one, other in zip(looped.get_weights(), model.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert looped_history.keys() == history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(looped_history[name], values, rtol=1e-4)


def test_fit_compiles_its_loop(monkeypatch):
    made = []
    make = compiled_loop.make
    monkeypatch.setattr(
        compiled_loop, "make", lambda *a: made.append(a) or make(*a)
    )
    trained(4, jit_compile=False)
    assert not made
    trained(4, jit_compile=True)
    assert [count for _, count in made] == [4]
