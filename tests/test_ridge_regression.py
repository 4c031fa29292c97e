import numpy as np
import pytest
import tensorflow as tf

from keras_meta import ridge_regression


def random_problem(examples, features, tasks=2, outputs=3, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(tasks, examples, features))
    y = generator.normal(size=(tasks, examples, outputs))
    weight = generator.uniform(0.5, 3.0, size=(tasks, examples))
    return x, y, weight


def by_hand(x, y, weight, strength):
    """The normal equations, of the size of the features."""
    gram = x.T @ (weight[:, None] * x) + strength * np.eye(x.shape[1])
    return np.linalg.solve(gram, x.T @ (weight[:, None] * y))


def single(*arrays):
    return [tf.constant(array, "float32") for array in arrays]


# The primal and the dual problem, and where one becomes the other.
@pytest.mark.parametrize(
    "examples, features", [(9, 4), (5, 4), (4, 4), (3, 8), (1, 5)]
)
@pytest.mark.parametrize("strength", [0.1, 7.0])
def test_solution_equals_the_normal_equations(examples, features, strength):
    problem = random_problem(examples, features)
    found = ridge_regression.solve(*map(tf.constant, problem), strength)
    assert found.shape == (2, features, 3)
    for task, head in enumerate(found):
        expected = by_hand(*(part[task] for part in problem), strength)
        # What is added for float32 is a millionth of the squares.
        np.testing.assert_allclose(head, expected, rtol=1e-3, atol=1e-4)


def test_solution_is_the_least_of_what_is_minimized():
    x, y, weight = map(tf.constant, random_problem(6, 4))
    head = ridge_regression.solve(x, y, weight, 0.5)
    with tf.GradientTape() as tape:
        tape.watch(head)
        error = tf.reduce_sum(tf.square(tf.matmul(x, head) - y), axis=-1)
        value = tf.reduce_sum(weight * error)
        value += 0.5 * tf.reduce_sum(tf.square(head))
    slope = tape.gradient(value, head)
    assert np.max(np.abs(slope)) < 1e-3 < np.max(np.abs(head))


def test_gradient_equals_finite_differences():
    x, y, weight = random_problem(5, 3, tasks=1, outputs=1)

    def answer(x, strength):
        return tf.reduce_sum(ridge_regression.solve(x, y, weight, strength))

    for features in (x, x[:, :2]):
        if features is not x:
            y, weight = y[:, :2], weight[:, :2]
        features, strength = tf.constant(features), tf.constant(0.7, "float64")
        with tf.GradientTape() as tape:
            tape.watch([features, strength])
            value = answer(features, strength)
        slopes = tape.gradient(value, [features, strength])
        step = np.zeros(features.shape)
        step[0, 1, 2] = 1e-6
        for slope, up, down in (
            (
                slopes[0][0, 1, 2],
                answer(features + step, strength),
                answer(features - step, strength),
            ),
            (
                slopes[1],
                answer(features, strength + 1e-6),
                answer(features, strength - 1e-6),
            ),
        ):
            assert abs(slope) > 1e-3
            np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=1e-3)


@pytest.mark.parametrize("examples, features", [(2, 5), (8, 5)])
def test_an_example_of_weight_0_does_not_count(examples, features):
    x, y, weight = random_problem(examples + 2, features)
    weight[:, -2:] = 0.0
    # In double precision, where nothing has to be added to speak of.
    parts = [tf.constant(part) for part in (x, y, weight)]
    fewer = [part[:, :-2] for part in parts]
    np.testing.assert_allclose(
        ridge_regression.solve(*parts, 1.0),
        ridge_regression.solve(*fewer, 1.0),
        rtol=1e-3,
        atol=1e-4,
    )


DEGENERATE = {
    "of duplicates": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "of two kinds": lambda x: np.where(
        np.arange(x.shape[1])[:, None] % 2, x[:, :1], x[:, 1:2]
    ),
    "of zeros": np.zeros_like,
    "of equal features": lambda x: np.broadcast_to(x[..., :1], x.shape),
    "of one large example": lambda x: np.concatenate(
        [1e4 * x[:, :1], 1e-3 * x[:, 1:]], axis=1
    ),
    "as it is": lambda x: x,
}


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("kind", DEGENERATE)
def test_singular_problems_have_finite_answers_and_gradients(kind, scale):
    for examples, features in ((40, 8), (25, 64), (100, 160), (1, 8)):
        x, y, weight = random_problem(examples, max(features, 2))
        if examples > 1:
            x = scale * DEGENERATE[kind](x)
        x, y, weight = single(x, y, weight)
        strength = tf.constant(1.0)
        with tf.GradientTape() as tape:
            tape.watch([x, y, strength])
            head = ridge_regression.solve(x, y, weight, strength)
            answers = tf.matmul(x, head)
            total = tf.reduce_sum(tf.square(answers))
        assert np.all(np.isfinite(head))
        assert np.all(np.isfinite(answers))
        for slope in tape.gradient(total, [x, y, strength]):
            assert np.all(np.isfinite(slope))
        # Not only finite: no answer is far beyond what was to be fitted.
        assert np.max(np.abs(answers)) < 10 * np.max(np.abs(y))
