import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
import keras_meta.rl
from keras_meta.rl.rollout_encoding import FitOfSteps

environments = keras_meta.rl.environments


def test_random_rollouts_tell_what_steps_led_to():
    family = environments.PointNavigation(radius=0.15)
    # The first goal is so near that any step ends there.
    goals = tf.constant([[0.02, 0.02], [4.0, -4.0]])
    seen = keras_meta.rl.random_rollouts(family, goals, 30).numpy()
    assert seen.shape == (2, 30, 8)
    observation, action, reward, change, happens = np.split(
        seen, [2, 4, 5, 7], axis=-1
    )
    went_on = happens[1, :, 0] == 1
    assert went_on.all()
    assert np.abs(action).max() <= 1
    np.testing.assert_allclose(change[1], 0.1 * action[1], atol=1e-6)
    place = observation + change
    np.testing.assert_allclose(
        reward[1, :, 0],
        -np.sum((place[1] - goals[1].numpy()) ** 2, axis=1),
        atol=1e-5,
    )
    nothing = happens[0, :, 0] == 0
    assert nothing.any() and not nothing.all()
    np.testing.assert_array_equal(seen[0][nothing], 0.0)


def test_whole_actions_are_one_hot():
    family = environments.Bandits(arms=3, horizon=5)
    seen = keras_meta.rl.random_rollouts(family, family.sample_tasks(4), 5)
    assert seen.shape == (4, 5, 7)
    np.testing.assert_array_equal(np.sum(seen[..., 1:4], axis=-1), 1.0)


def test_the_fit_finds_coefficients():
    generator = np.random.default_rng(0)
    features = generator.normal(size=[2, 9, 3]).astype("float32")
    coefficients = generator.normal(size=[2, 3, 2]).astype("float32")
    outcome = features @ coefficients
    # What is no step does not count.
    weight = np.ones([2, 9], "float32")
    weight[:, -1] = 0.0
    outcome[:, -1] += 10.0
    found = FitOfSteps()(*map(tf.constant, (features, outcome, weight)))
    np.testing.assert_allclose(found, coefficients.reshape(2, 6), atol=1e-3)


def test_pairs_are_as_alike_as_their_tasks():
    family = environments.PointNavigation()
    x, labels, weights = next(
        iter(keras_meta.rl.rollout_pairs(family, steps=4, batch_size=400))
    )
    np.testing.assert_array_equal(labels, [1.0] * 200 + [0.0] * 200)
    np.testing.assert_allclose(weights[:200] + weights[200:], 1.0, atol=1e-6)
    alike = weights[:200].numpy()
    assert 40 < np.sum(alike == 1) < 95
    for part in x.values():
        np.testing.assert_array_equal(part[:200], part[200:])


def test_the_loss_of_pairs_is_least_at_the_distance_of_the_tasks():
    loss = keras_meta.losses.ContrastiveLoss(reduction="sum")
    far = np.linspace(0.0, 1.0, 101).astype("float32")
    for alike in (0.0, 0.3, 1.0):
        values = [
            float(loss([1.0, 0.0], [d, d], sample_weight=[alike, 1.0 - alike]))
            for d in far
        ]
        assert abs(far[np.argmin(values)] - (1.0 - alike)) < 0.011


def test_an_encoder_learns_where_goals_are():
    keras.utils.set_random_seed(0)
    family = environments.PointNavigation()
    encoder = keras_meta.rl.rollout_encoder(family, steps=8, units=16)
    siamese = keras_meta.SiameseNetwork(encoder)
    siamese.compile(
        keras.optimizers.Adam(1e-2), loss=keras_meta.losses.ContrastiveLoss()
    )
    pairs = keras_meta.rl.rollout_pairs(family, steps=8, batch_size=128)
    goals = family.sample_tasks(200, "test")
    seen = keras_meta.rl.random_rollouts(family, goals, 8)

    def likeness():
        """Compares distances of embeddings with distances of goals."""
        embeddings = encoder(seen).numpy()
        distances = [
            np.linalg.norm(part - np.roll(part, 1, axis=0), axis=1)
            for part in (embeddings, goals.numpy())
        ]
        return np.corrcoef(*distances)[0, 1]

    before = likeness()
    siamese.fit(pairs, steps_per_epoch=40, verbose=0)
    assert likeness() > 0.9 > before
    # Encoders are ordinary Keras models.
    again = keras.models.clone_model(encoder)
    again.set_weights(encoder.get_weights())
    np.testing.assert_allclose(again(seen), encoder(seen), atol=1e-5)


def test_what_cannot_be_is_refused():
    family = environments.PointNavigation()
    with pytest.raises(ValueError, match="`steps` must be"):
        keras_meta.rl.rollout_encoder(family, steps=0)
    with pytest.raises(ValueError, match="`batch_size` must be even.*Recei"):
        keras_meta.rl.rollout_pairs(family, batch_size=5)
    with pytest.raises(ValueError, match="`reach` must be"):
        keras_meta.rl.rollout_pairs(family, reach=0.0)
