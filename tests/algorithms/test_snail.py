import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_attentive_neural_process import softmax
from tests.algorithms.test_conditional_neural_process import dense
from tests.algorithms.test_conditional_neural_process import embed
from tests.algorithms.test_conditional_neural_process import one_hot
from tests.algorithms.test_generating_learners import make_learner
from tests.algorithms.test_generating_learners import random_tasks
from tests.algorithms.test_matching_network import sigmoid


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.SNAIL(
        network,
        3,
        max_supports=9,
        filters=16,
        attention_size=16,
        stages=1,
        **settings,
    )
    model.compile(
        keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def convolved(layer, sequence):
    """A causal convolution of two places, over the whole sequence."""
    result = []
    for time, features in enumerate(sequence):
        earlier = time - layer.dilation
        before = sequence[earlier] if earlier >= 0 else 0 * features
        both = dense(
            np.concatenate([before, features]), layer.dense.get_weights()
        )
        values, gates = np.split(both, 2)
        result.append(np.tanh(values) * sigmoid(gates))
    return result


def attended(layer, sequence):
    """Causal attention of one head, over the whole sequence."""
    keys, questions, values = (
        [dense(features, part.get_weights()) for features in sequence]
        for part in (layer.keys, layer.questions, layer.values)
    )
    result = []
    for time in range(len(sequence)):
        scores = [questions[time] @ key for key in keys[: time + 1]]
        shares = softmax(np.array(scores) / np.sqrt(layer.size))
        result.append(sum(s * value for s, value in zip(shares, values)))
    return result


def by_hand(model, support_x, support_y, query):
    """The sequence of the support set and one query, time by time."""
    sequence = [
        np.concatenate([embed(model, x), one_hot(y, model.regression)])
        for x, y in zip(support_x, support_y)
    ]
    sequence.append(np.concatenate([embed(model, query), np.zeros(3)]))
    for convolutions, attention in zip(model.convolutions, model.attentions):
        for number, layer in enumerate(convolutions):
            assert layer.dilation == 2**number
            more = convolved(layer, sequence)
            sequence = [np.concatenate(two) for two in zip(sequence, more)]
        more = attended(attention, sequence)
        sequence = [np.concatenate(two) for two in zip(sequence, more)]
    return dense(sequence[-1], model.head.get_weights())


# Of one example, of as many as convolutions reach, and in between.
@pytest.mark.parametrize(
    "supports, regression", [(1, False), (5, True), (7, False)]
)
def test_answers_equal_the_whole_sequence_with_loops(supports, regression):
    model = make_learner("snail", regression)
    x = random_tasks(regression, tasks=2, supports=supports)
    answers = model(x)
    for task in range(2):
        present = x["support_y"][task]
        for query, answer in zip(x["query_x"][task], answers[task]):
            expected = by_hand(
                model, x["support_x"][task], x["support_y"][task], query
            )
            if not regression:
                absent = np.setdiff1d(np.arange(3), present)
                np.testing.assert_array_equal(answer.numpy()[absent], -1e9)
                expected[absent] = -1e9
            np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "max_supports, convolutions", [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3)]
)
def test_convolutions_reach_back_to_the_start(max_supports, convolutions):
    network = keras_meta.backbones.mlp((4,), (3,), outputs=None)
    model = keras_meta.SNAIL(network, 3, max_supports, stages=1, filters=2)
    assert len(model.convolutions[0]) == convolutions
    # The query's place sees the first example through them alone.
    layers = model.convolutions[0]
    reached = {max_supports}
    for layer in reversed(layers):
        reached |= {time - layer.dilation for time in reached}
    assert 0 in reached


def test_refuses_bad_arguments():
    network = keras_meta.backbones.mlp((8,), (4,), outputs=None)
    for settings, message in (
        ({"max_supports": None}, "`max_supports` must be.*None"),
        ({"max_supports": 2.5}, "`max_supports` must be"),
        ({"filters": 0}, "`filters` must be"),
        ({"attention_size": 0}, "`attention_size` must be"),
        ({"stages": 0}, "`stages` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_meta.SNAIL(network, 3, **{"max_supports": 5} | settings)


class TestSNAIL(contract.AlgorithmContract):
    steps_per_epoch = 250
    support_order_matters = True

    def make_model(self):
        return make_model()
