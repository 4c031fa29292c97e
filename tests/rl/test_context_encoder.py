import numpy as np
import pytest
import tensorflow as tf

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from keras_meta import backbones
from keras_meta.rl import latent_belief
from keras_meta.rl.context_encoder import ContextEncoder
from keras_meta.rl.task_memory import Transitions

NUMBER = tf.TensorSpec([], tf.float32)
VECTOR = tf.TensorSpec([2], tf.float32)
SPEC = Transitions(VECTOR, VECTOR, NUMBER, NUMBER, VECTOR)


def make(model=None):
    return ContextEncoder(SPEC, lambda action: action / 10.0, model, 3, 5.0)


def transitions(count):
    generator = np.random.default_rng(0)
    return tf.nest.map_structure(
        lambda spec: tf.constant(
            generator.normal(size=(2, count, *spec.shape)), tf.float32
        ),
        SPEC,
    )


def test_it_multiplies_what_the_model_says_of_each_transition():
    encoder = make()
    seen = transitions(4)
    prior = latent_belief.prior(2, 3)
    found = encoder.inferred(prior, seen, tf.ones([2, 4]))
    inputs = tf.concat(
        [
            seen.observation,
            seen.action / 10.0,
            5.0 * seen.reward[..., None],
            seen.next_observation,
        ],
        axis=-1,
    )
    for task in range(2):
        means, spreads = encoder.network.model(inputs[task])
        precisions = 1 / (np.log1p(np.exp(spreads)) + 1e-5)
        precision = 1 + precisions.sum(0)
        np.testing.assert_allclose(
            found.variance[task], 1 / precision, rtol=1e-4
        )
        np.testing.assert_allclose(
            found.mean[task],
            (precisions * means.numpy()).sum(0) / precision,
            rtol=1e-3,
            atol=1e-5,
        )


def test_nothing_seen_is_the_prior():
    belief = make().inferred(
        latent_belief.prior(2, 3), transitions(4), tf.zeros([2, 4])
    )
    np.testing.assert_array_equal(belief.mean, 0)
    np.testing.assert_array_equal(belief.variance, 1)


def test_a_model_for_other_vectors_is_refused():
    with pytest.raises(ValueError, match="`encoder_model` must take vectors"):
        make(backbones.mlp((8,), (4,), outputs=None))
    assert make(backbones.mlp((7,), (4,), outputs=None)).network.variables
