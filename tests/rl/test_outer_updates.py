import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import outer_updates

START = [1.0, -2.0, 3.0]


class Quadratic:
    """A linear loss within a quadratic divergence, which has an answer."""

    def __init__(self, climbs=False):
        generator = np.random.default_rng(0)
        root = generator.normal(size=(3, 3))
        self.metric = (root @ root.T + np.eye(3)).astype("float32")
        self.slope = generator.normal(size=3).astype("float32")
        self.variables = [keras.Variable(START)]
        self.climbs = climbs

    def values(self):
        return [tf.convert_to_tensor(v.value) for v in self.variables]

    def loss_and_gradients(self, values):
        return tf.tensordot(self.slope, values[0], 1), [tf.constant(self.slope)]

    def loss_and_divergence(self, values):
        way = values[0] - START
        loss = tf.tensordot(self.slope, values[0], 1)
        if self.climbs:
            loss = 100.0 + tf.norm(way)
        return loss, 0.5 * tf.tensordot(
            way, tf.linalg.matvec(self.metric, way), 1
        )

    def divergence_product(self, values, vector):
        return [tf.linalg.matvec(self.metric, vector[0])]


def test_a_trust_region_is_left_by_no_more_than_it_may():
    problem = Quadratic()
    update = outer_updates.TrustRegion(
        divergence=0.5, conjugate_steps=3, damping=0.0
    )
    loss, norm = tf.function(lambda: update.apply(problem), autograph=False)()
    np.testing.assert_allclose(loss, problem.slope @ START, rtol=1e-5)
    np.testing.assert_allclose(norm, np.linalg.norm(problem.slope), rtol=1e-5)
    natural = np.linalg.solve(problem.metric, problem.slope)
    length = np.sqrt(2 * 0.5 / (problem.slope @ natural))
    moved = problem.values()[0] - START
    # The whole step touches the bound; rounded, it may be shortened once.
    share = np.linalg.norm(moved) / np.linalg.norm(length * natural)
    assert share == pytest.approx(1.0, rel=1e-3) or share == pytest.approx(
        0.8, rel=1e-3
    )
    np.testing.assert_allclose(moved, -share * length * natural, rtol=1e-3)
    _, divergence = problem.loss_and_divergence(problem.values())
    assert 0.3 < divergence <= 0.5


def test_a_step_that_helps_nowhere_is_not_taken():
    problem = Quadratic(climbs=True)
    update = outer_updates.TrustRegion(conjugate_steps=2, trials=3)
    tf.function(lambda: update.apply(problem), autograph=False)()
    np.testing.assert_array_equal(problem.values()[0], START)


def test_epochs_are_as_many_steps_of_the_optimizer():
    problem = Quadratic()
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(problem.variables)
    update = outer_updates.ClippedSurrogate(epochs=3)
    tf.function(lambda: update.apply(problem, optimizer), autograph=False)()
    np.testing.assert_allclose(
        problem.values()[0], START - 0.3 * problem.slope, rtol=1e-5
    )


def test_the_clipped_surrogate_by_hand():
    update = outer_updates.ClippedSurrogate(clip=0.2)
    ratio = np.array([0.5, 0.9, 1.5, 0.5, 1.5])
    advantage = np.array([1.0, 1.0, 1.0, -1.0, -1.0])
    loss = update.loss(tf.math.log(ratio), advantage)
    np.testing.assert_allclose(loss, [-0.5, -0.9, -1.2, 0.8, 1.5])


def test_outer_updates_go_by_name():
    assert isinstance(
        outer_updates.get("reinforce"), outer_updates.PolicyGradient
    )
    update = outer_updates.TrustRegion(divergence=0.1)
    assert outer_updates.get(update) is update
    with pytest.raises(ValueError, match="`outer_update` must be one of"):
        outer_updates.get("a2c")
    with pytest.raises(ValueError, match="`epochs`"):
        outer_updates.ClippedSurrogate(epochs=0)
    with pytest.raises(ValueError, match="`divergence`"):
        outer_updates.TrustRegion(divergence=0)
