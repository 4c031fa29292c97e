import keras
import numpy as np
import pytest

from keras_meta import update_rules


def test_step_by_hand():
    rule = update_rules.GradientDescent(0.5)
    weights = [np.array([1.0, 2.0]), np.array([[3.0]])]
    gradients = [np.array([0.2, -0.4]), np.array([[1.0]])]
    state = rule.initial_state(weights)
    (first, second), new_state = rule.call(weights, gradients, state, step=0)
    np.testing.assert_allclose(first, [0.9, 2.2])
    np.testing.assert_allclose(second, [[2.5]])
    assert new_state == state == ()


def test_config_round_trip():
    rule = update_rules.GradientDescent(0.3, name="slow")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(rule)
    )
    assert isinstance(copy, update_rules.GradientDescent)
    assert (copy.learning_rate, copy.name) == (0.3, "slow")


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), "fast", True])
def test_refuses_bad_rates(rate):
    with pytest.raises(ValueError, match="`learning_rate` must.*Received"):
        update_rules.GradientDescent(rate)


def test_a_rule_must_write_its_step():
    with pytest.raises(NotImplementedError, match="UpdateRule must implement"):
        update_rules.UpdateRule().call([], [], (), 0)


@pytest.mark.parametrize("name", update_rules.__all__)
def test_rules_refuse_to_be_built_for_nothing(name):
    with pytest.raises(ValueError, match="one or more.*Received: variables"):
        getattr(update_rules, name)().build_for([])
