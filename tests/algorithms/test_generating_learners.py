"""What learners that generate, and the transfer baselines, have in common."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta

FEATURES, OUTPUTS, SUPPORTS, QUERIES = 4, 3, 4, 3


def embedding_network():
    inputs = keras.Input((FEATURES,))
    return keras.Model(inputs, keras.layers.Dense(6, "tanh")(inputs))


def whole_network():
    inputs = keras.Input((FEATURES,))
    hidden = keras.layers.Dense(6, "tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(OUTPUTS)(hidden))


def neural_process(learner, **extra):
    def make(regression, **settings):
        settings = dict(hidden_units=(7,), code_size=8, **extra) | settings
        return learner(embedding_network(), OUTPUTS, regression, **settings)

    return make


def in_context_learner(regression, **settings):
    settings = dict(width=8, heads=2, blocks=2) | settings
    return keras_meta.InContextLearner(
        embedding_network(), OUTPUTS, regression, **settings
    )


def snail(regression, **settings):
    settings = dict(max_supports=7, filters=3, attention_size=4) | settings
    return keras_meta.SNAIL(
        embedding_network(), OUTPUTS, regression=regression, **settings
    )


def memory_augmented_network(regression, **settings):
    settings = dict(units=6, slots=5, slot_size=3, reads=2) | settings
    return keras_meta.MemoryAugmentedNetwork(
        embedding_network(), OUTPUTS, regression, **settings
    )


def ridge_head(regression, **settings):
    ways = None if regression else OUTPUTS
    return keras_meta.RidgeHead(
        embedding_network(), ways=ways, regression=regression, **settings
    )


def frozen_representation(classifier):
    def make(regression, **settings):
        ways = None if regression else OUTPUTS
        return keras_meta.FrozenRepresentation(
            embedding_network(),
            classifier,
            iterations=10,
            ways=ways,
            regression=regression,
            **settings,
        )

    return make


def fine_tuning(regression, **settings):
    settings = {
        "inner_steps": 2,
        "inner_learning_rate": 0.1,
        # Faster for calls that are not traced.
        "task_mapping": "sequential",
    } | settings
    if regression:
        return keras_meta.FineTuning(
            whole_network(), inner_loss="mse", **settings
        )
    return keras_meta.FineTuning(
        embedding_network(),
        OUTPUTS,
        inner_loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **settings,
    )


def hyper_network(generates):
    def make(regression, **settings):
        settings = dict(hidden_units=(7,), code_size=5, rank=2) | settings
        return keras_meta.HyperNetwork(
            whole_network(),
            regression=regression,
            generates=generates,
            **settings,
        )

    return make


# One of each class, that answers regressions, too.
LEARNERS = {
    "conditional_neural_process": neural_process(
        keras_meta.ConditionalNeuralProcess
    ),
    "attentive_neural_process": neural_process(
        keras_meta.AttentiveNeuralProcess, heads=2
    ),
    "in_context_learner": in_context_learner,
    "snail": snail,
    "memory_augmented_network": memory_augmented_network,
    "ridge_head": ridge_head,
    "frozen_representation": frozen_representation("ridge"),
    "fine_tuning": fine_tuning,
    "hyper_network": hyper_network("all"),
}
# What else reads a support set in a way of its own, for classes.
CLASSIFIERS = LEARNERS | {
    "in_context_learner_with_places": lambda regression: in_context_learner(
        regression, max_supports=7
    ),
    "nearest_centroid": frozen_representation("nearest_centroid"),
    "cosine": frozen_representation("cosine"),
    "logistic": frozen_representation("logistic"),
    "hyper_network_film": hyper_network("film"),
}
EVERYTHING = [(name, False) for name in CLASSIFIERS] + [
    (name, True) for name in LEARNERS
]


def with_random_weights(model, seed=0):
    """Sets weights for which what an answer hangs on is plain to see."""
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(0.5 * generator.normal(size=variable.shape))
    return model


def make_learner(name, regression=False):
    return with_random_weights(CLASSIFIERS[name](regression))


def random_tasks(regression=False, tasks=3, supports=SUPPORTS, seed=0):
    generator = np.random.default_rng(seed)
    if regression:
        labels = generator.normal(size=(tasks, supports, OUTPUTS))
        labels = labels.astype("float32")
    else:
        labels = np.tile(np.arange(supports) % OUTPUTS, (tasks, 1))
    return {
        "support_x": generator.normal(size=(tasks, supports, FEATURES)).astype(
            "float32"
        ),
        "support_y": labels,
        "query_x": generator.normal(size=(tasks, QUERIES, FEATURES)).astype(
            "float32"
        ),
    }


def padded(x, places):
    """Returns the episodes with examples of weight 0, all NaN, put in.

    `places` are where in the support set of each task they come.
    """
    labels = x["support_y"]
    parts = {
        "support_x": (x["support_x"], np.nan),
        "support_y": (labels, np.nan if labels.dtype == np.float32 else 1),
        "support_weight": (np.ones(labels.shape[:2], "float32"), 0.0),
    }
    inserted = {
        key: np.stack(
            [
                np.insert(task, at, filling, axis=0)
                for task, at in zip(part, places)
            ]
        )
        for key, (part, filling) in parts.items()
    }
    return {**inserted, "query_x": x["query_x"]}


def joined(*batches):
    return {
        key: np.concatenate([batch[key] for batch in batches])
        for key in batches[0]
    }


def answers_and_gradients(model, x, tasks):
    """Returns the answers, and the gradient of some tasks' squares."""
    with tf.GradientTape() as tape:
        answers = model(x)
        total = tf.reduce_sum(tf.square(tf.maximum(answers[:tasks], -100.0)))
    gradients = tape.gradient(total, model.trainable_variables)
    return answers, [
        tf.convert_to_tensor(slope) for slope in gradients if slope is not None
    ]


@pytest.mark.parametrize("name, regression", EVERYTHING)
def test_padding_of_nan_at_any_place_changes_nothing(name, regression):
    model = make_learner(name, regression)
    # Three tasks that are padded in front, in between and at the end, and in
    # the same meta-batch one that is longer.
    short, long = (
        random_tasks(regression, tasks, supports, seed=supports)
        for tasks, supports in ((3, SUPPORTS), (1, SUPPORTS + 2))
    )
    x = joined(
        padded(short, [[0, 0], [1, 3], [SUPPORTS, SUPPORTS]]),
        padded(long, [[]]),
    )
    alone = model(long)
    # The inner steps remember nothing to take a gradient through.
    if name == "fine_tuning":
        answers, expected = model(x), model(short)
    else:
        answers, slopes = answers_and_gradients(model, x, 3)
        expected, of_short = answers_and_gradients(model, short, 3)
        assert len(slopes) == len(of_short) > 0
        for one, other in zip(slopes, of_short):
            np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2)
    close = dict(rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(answers[:3], expected, **close)
    np.testing.assert_allclose(answers[3:], alone, **close)

    adapted = model.adapt(
        *(x[key][1] for key in ("support_x", "support_y", "support_weight"))
    )
    np.testing.assert_allclose(
        keras.ops.softmax(adapted(x["query_x"][1])),
        keras.ops.softmax(answers[1]),
        **close,
    )
    # If the examples counted, it would be seen.
    counted = {key: np.nan_to_num(value) for key, value in x.items()}
    counted["support_weight"] = np.ones_like(x["support_weight"])
    for one, other in zip(model(counted)[:3], answers):
        assert not np.allclose(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_each_query_is_answered_on_its_own(name):
    x = random_tasks(tasks=1)
    # Two tasks, alike but for what is asked beside one of the queries.
    x = joined(x, x)
    x["query_x"][1] += 1.0
    x["query_x"][1, 2] = x["query_x"][0, 2]
    one, other = make_learner(name)(x)
    np.testing.assert_allclose(one[2], other[2], rtol=1e-4, atol=1e-5)
    assert not np.allclose(one[0], other[0], rtol=1e-2, atol=1e-2)
