import keras
import numpy as np
import pytest
import tensorflow as tf

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


class TestWithLatentPath(contract.VariantContract):
    def make_model(self):
        return make_model(latent_size=4, samples=3)


@pytest.mark.parametrize("regression", [False, True])
def test_prediction_is_the_mixture_over_draws(regression):
    x = random_tasks(regression, tasks=2)
    network = keras_meta.backbones.mlp(x["query_x"].shape[2:], (4,), None)
    outputs = 3
    model = keras_meta.AttentiveNeuralProcess(
        network,
        outputs,
        regression,
        (8,),
        code_size=8,
        heads=2,
        latent_size=2,
        samples=5,
    )
    support, labels, weight, queries = model._parts(x, training=False)
    means, deviations = model.latent(support, labels, weight)
    each = np.stack(
        [
            model.answer(
                support,
                labels,
                weight,
                queries,
                False,
                drawn=means + deviations * noise,
            )
            for noise in model.noise.numpy()
        ]
    )
    answers = model(x).numpy()
    if not regression:
        mixed = keras.ops.softmax(each).numpy().mean(axis=0)
        np.testing.assert_allclose(np.exp(answers), mixed, rtol=1e-4)
        return
    # The moments of very many draws of the mixture.
    one, spread = each[..., :3], each[..., 3:]
    generator = np.random.default_rng(0)
    draws = one + spread * generator.normal(size=(20000, *one.shape))
    draws = draws.reshape(-1, *one.shape[1:])
    np.testing.assert_allclose(answers[..., :3], draws.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(answers[..., 3:], draws.std(axis=0), atol=0.05)


def test_latent_path_trains_on_minus_the_evidence_lower_bound():
    network = keras_meta.backbones.mlp((8,), (4,), outputs=None)
    loss = keras_meta.losses.GaussianLikelihood()
    model = keras_meta.AttentiveNeuralProcess(
        network, 1, True, (8,), code_size=8, heads=2, latent_size=2
    )
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    generator = np.random.default_rng(0)
    x = {
        "support_x": generator.normal(size=(2, 3, 8)).astype("float32"),
        "support_y": generator.normal(size=(2, 3, 1)).astype("float32"),
        "query_x": generator.normal(size=(2, 4, 8)).astype("float32"),
    }
    y = generator.normal(size=(2, 4, 1)).astype("float32")
    seed = model.draws.numpy()
    logged = model.train_on_batch(x, y)
    assert model.draws.numpy()[1] == seed[1] + 1

    model.draws.assign(seed)
    parts = model._parts(x, training=True)
    support, labels, weight, queries = parts
    before = model.latent(support, labels, weight)
    after = model.latent(
        tf.concat([support, queries], axis=1),
        np.concatenate([labels, y], axis=1),
        np.ones((2, 7), "float32"),
    )
    noise = model._draw(2)
    answers = model.answer(*parts, True, drawn=after[0] + after[1] * noise)
    likelihood = float(loss(y, answers))
    # The divergence by numerical integration over each latent number.
    divergence = 0.0
    grid = np.linspace(-12, 12, 20001)
    for task in range(2):
        for number in range(2):
            densities = [
                np.exp(-0.5 * ((grid - mean[task, number]) / deviation) ** 2)
                / (deviation * np.sqrt(2 * np.pi))
                for mean, deviation in (
                    (means.numpy(), deviations[task, number].numpy())
                    for means, deviations in (after, before)
                )
            ]
            one, other = np.maximum(densities, 1e-300)
            divergence += np.sum(one * np.log(one / other)) * (
                grid[1] - grid[0]
            )
    expected = likelihood + divergence / 2 / 4
    np.testing.assert_allclose(float(logged), expected, rtol=1e-4)


def test_draws_are_normal_and_never_the_same():
    model = make_model(latent_size=4)
    one, other = model._draw(2000), model._draw(2000)
    assert not np.allclose(one, other)
    assert abs(np.mean(one)) < 0.05 and abs(np.std(one) - 1.0) < 0.05


def test_padded_queries_tell_nothing_of_the_task():
    model = make_model(latent_size=4)
    x, y = next(iter(contract.blob_episodes()))
    weight = np.ones(y.shape, "float32")
    weight[:, 5:] = 0.0
    results = []
    for labels in (y, np.where(weight > 0, y, 2)):
        keras.utils.set_random_seed(0)
        model = make_model(latent_size=4)
        model.compile(keras.optimizers.SGD(0.1), loss=model.loss)
        model.train_on_batch(x, labels, weight)
        results.append(model.get_weights())
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
