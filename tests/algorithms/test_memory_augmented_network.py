import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_attentive_neural_process import softmax
from tests.algorithms.test_conditional_neural_process import check_answers
from tests.algorithms.test_conditional_neural_process import dense
from tests.algorithms.test_conditional_neural_process import embed
from tests.algorithms.test_conditional_neural_process import one_hot
from tests.algorithms.test_generating_learners import make_learner
from tests.algorithms.test_generating_learners import random_tasks
from tests.algorithms.test_matching_network import lstm_step
from tests.algorithms.test_matching_network import sigmoid


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.MemoryAugmentedNetwork(
        network, 3, units=32, slots=16, slot_size=8, reads=2, **settings
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def cosine(one, other):
    lengths = max(np.linalg.norm(one), 1e-4) * max(np.linalg.norm(other), 1e-4)
    return one @ other / lengths


def by_hand(model, support_x, support_y, query):
    """The support set and one query, step by step and slot by slot."""
    cell = model.memory.cell
    slots, size, reads = cell.slots, cell.slot_size, cell.reads
    hidden = carry = np.zeros(cell.units)
    read = np.zeros(reads * size)
    memory = np.full((slots, size), 1e-6)
    attention, usage = np.zeros((reads, slots)), np.zeros(slots)
    label = np.zeros(3)
    for x, y in zip([*support_x, query], [*support_y, None]):
        hidden, carry = lstm_step(
            np.concatenate([embed(model, x), label, read]),
            hidden,
            carry,
            *cell.controller.get_weights(),
        )
        keys = np.tanh(dense(hidden, cell.keys.get_weights()))
        keys = keys.reshape(reads, size)
        gates = sigmoid(dense(hidden, cell.gates.get_weights()))
        # Of places that are used alike, the first.
        least = sorted(range(slots), key=lambda slot: usage[slot])[:reads]
        memory = memory.copy()
        memory[least[0]] = 0.0
        writing = np.zeros((reads, slots))
        for head in range(reads):
            writing[head] = gates[head] * attention[head]
            writing[head, least[head]] += 1 - gates[head]
            for slot in range(slots):
                memory[slot] += writing[head, slot] * keys[head]
        strengths = dense(hidden, cell.strengths.get_weights())
        strengths = np.log(1 + np.exp(strengths))
        attention = np.array(
            [
                softmax(
                    strengths[head]
                    * np.array([cosine(keys[head], slot) for slot in memory])
                )
                for head in range(reads)
            ]
        )
        read = np.concatenate(
            [attention[head] @ memory for head in range(reads)]
        )
        usage = cell.usage_decay * usage + attention.sum(0) + writing.sum(0)
        # It is told at the next step.
        label = None if y is None else one_hot(y, model.regression)
    return dense(np.concatenate([hidden, read]), model.head.get_weights())


@pytest.mark.parametrize("regression", [False, True])
def test_answers_equal_loops_over_steps_and_slots(regression):
    # More steps than slots, so that places are written to again.
    model = make_learner("memory_augmented_network", regression)
    x = random_tasks(regression, tasks=2, supports=7)
    check_answers(model, x, by_hand)


def test_any_length_unless_it_is_limited():
    network = keras_meta.backbones.mlp((4,), (3,), outputs=None)
    settings = dict(units=4, slots=4, slot_size=2, reads=1)
    model = keras_meta.MemoryAugmentedNetwork(network, 3, **settings)
    assert model(random_tasks(supports=12)).shape == (3, 3, 3)
    model = keras_meta.MemoryAugmentedNetwork(
        network, 3, max_supports=11, **settings
    )
    with pytest.raises(ValueError, match="12 support examples.*supports=11"):
        model(random_tasks(supports=12))


def test_refuses_bad_arguments():
    network = keras_meta.backbones.mlp((8,), (4,), outputs=None)
    for settings, message in (
        ({"units": 0}, "`units` must be"),
        ({"slots": 0}, "`slots` must be"),
        ({"slot_size": 0}, "`slot_size` must be"),
        ({"reads": 0}, "`reads` must be"),
        ({"reads": 5, "slots": 4}, "must not be more.*reads=5 and slots=4"),
        ({"usage_decay": 0.0}, "`usage_decay` must be.*above 0"),
        ({"usage_decay": 1.0}, "`usage_decay` must be below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_meta.MemoryAugmentedNetwork(network, 3, **settings)


class TestMemoryAugmentedNetwork(contract.AlgorithmContract):
    steps_per_epoch = 120
    support_order_matters = True

    def make_model(self):
        return make_model()
