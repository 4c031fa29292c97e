import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_conditional_neural_process import check_answers
from tests.algorithms.test_conditional_neural_process import codes_of
from tests.algorithms.test_conditional_neural_process import decoded
from tests.algorithms.test_conditional_neural_process import embed
from tests.algorithms.test_generating_learners import make_learner
from tests.algorithms.test_generating_learners import random_tasks


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.AttentiveNeuralProcess(
        network, 3, hidden_units=(32,), code_size=32, heads=4, **settings
    )
    model.compile(
        keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def softmax(scores):
    powers = np.exp(scores - np.max(scores))
    return powers / powers.sum()


def attention(layer, query, keys, values):
    """What one query reads by an attention of several heads, with loops."""
    weights = layer.get_weights()
    projections = list(zip(weights[:6:2], weights[1:6:2]))
    result = weights[7].astype("float64")
    for head in range(weights[0].shape[1]):
        question, *pairs = (
            [x @ kernel[:, head] + bias[head] for x in inputs]
            for (kernel, bias), inputs in zip(
                projections, ([query], keys, values)
            )
        )
        scores = [question[0] @ key for key in pairs[0]]
        shares = softmax(np.array(scores) / np.sqrt(len(question[0])))
        read = sum(share * value for share, value in zip(shares, pairs[1]))
        result = result + read @ weights[6][head]
    return result


@pytest.mark.parametrize("regression", [False, True])
def test_answers_equal_attention_with_loops(regression):
    def by_hand(model, support_x, support_y, query):
        codes = codes_of(model, support_x, support_y)
        codes = [
            code + attention(model.among_pairs, code, codes, codes)
            for code in codes
        ]
        examples = [embed(model, x) for x in support_x]
        known = attention(model.to_pairs, embed(model, query), examples, codes)
        return decoded(model, query, known)

    model = make_learner("attentive_neural_process", regression)
    check_answers(model, random_tasks(regression, tasks=2), by_hand)


def test_refuses_heads_that_do_not_divide():
    network = keras_meta.backbones.mlp((8,), (4,), outputs=None)
    for heads, message in (
        (3, "`code_size` must be a multiple of `heads`.*=8 and heads=3"),
        (8, "`code_size` must be a multiple of `heads`.*=8 and heads=8"),
        (0, "`heads` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_meta.AttentiveNeuralProcess(
                network, 3, code_size=8, heads=heads
            )


class TestAttentiveNeuralProcess(contract.AlgorithmContract):
    steps_per_epoch = 250

    def make_model(self):
        return make_model()
