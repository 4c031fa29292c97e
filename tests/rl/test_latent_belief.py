import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from keras_meta.rl import latent_belief

TASKS, TRANSITIONS, SIZE = 2, 6, 3


def factors():
    generator = np.random.default_rng(0)
    means = generator.normal(size=(TASKS, TRANSITIONS, SIZE))
    variances = generator.uniform(0.1, 2.0, means.shape)
    return means.astype("float32"), variances.astype("float32")


def updated(means, variances, weights=None, belief=None):
    if weights is None:
        weights = np.ones(means.shape[:2], "float32")
    if belief is None:
        belief = latent_belief.prior(TASKS, SIZE)
    return latent_belief.updated(belief, means, variances, weights)


def test_a_product_of_normal_densities_is_the_normal_density_it_says():
    means, variances = factors()
    belief = updated(means, variances)
    # One by one: the product of two normal densities in closed form.
    mean, variance = np.zeros((TASKS, SIZE)), np.ones((TASKS, SIZE))
    for number in range(TRANSITIONS):
        other, spread = means[:, number], variances[:, number]
        mean = (mean * spread + other * variance) / (variance + spread)
        variance = variance * spread / (variance + spread)
    np.testing.assert_allclose(belief.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(belief.variance, variance, rtol=1e-5)


def test_transitions_count_in_any_order_and_in_any_portions():
    means, variances = factors()
    belief = updated(means, variances)
    order = np.random.default_rng(1).permutation(TRANSITIONS)
    other = updated(means[:, order], variances[:, order])
    first = updated(means[:, :2], variances[:, :2])
    portions = updated(means[:, 2:], variances[:, 2:], belief=first)
    for found in (other, portions):
        for one, another in zip(found, belief):
            np.testing.assert_allclose(one, another, rtol=1e-4)


def test_what_has_no_weight_is_as_if_it_were_not_there():
    means, variances = factors()
    weights = np.ones((TASKS, TRANSITIONS), "float32")
    weights[:, 4:] = 0
    found = updated(means, variances, weights)
    wanted = updated(means[:, :4], variances[:, :4])
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-5)
    nothing = updated(means, variances, 0 * weights)
    np.testing.assert_array_equal(nothing.mean, 0)
    np.testing.assert_array_equal(nothing.variance, 1)


def test_the_divergence_is_that_of_tensorflow_probability():
    means, variances = factors()
    belief = latent_belief.Belief(means[:, 0], variances[:, 0])
    normal = tfp.distributions.Normal
    wanted = normal(belief.mean, np.sqrt(belief.variance)).kl_divergence(
        normal(0.0, 1.0)
    )
    np.testing.assert_allclose(
        latent_belief.divergence(belief),
        tf.reduce_sum(wanted, axis=-1),
        rtol=1e-5,
    )
    prior = latent_belief.prior(TASKS, SIZE)
    np.testing.assert_array_equal(latent_belief.divergence(prior), 0)


def test_draws_have_the_mean_and_the_variance():
    mean, variance = tf.constant([1.0, -2.0]), tf.constant([0.5, 4.0])
    belief = latent_belief.Belief(
        *[tf.repeat(part[None], 20000, axis=0) for part in (mean, variance)]
    )
    drawn = latent_belief.draw(belief).numpy()
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.05)
