import keras
import numpy as np
import pytest

import keras_meta
from keras_meta import update_rules
from tests.update_rules import contract


class TestMetaSGD(contract.RuleContract):
    def make_rule(self):
        return update_rules.MetaSGD(0.1)


def test_each_weight_has_a_rate_of_its_own():
    variables = contract.variables()
    rule = update_rules.MetaSGD(0.1)
    rule.build_for(variables)
    assert [r.shape for r in rule.rates] == [v.shape for v in variables]
    rates = [np.random.default_rng(1).normal(size=r.shape) for r in rule.rates]
    for variable, rate in zip(rule.rates, rates):
        variable.assign(rate)
    weights = [np.array(v) for v in variables]
    gradients = [np.ones_like(weight) for weight in weights]
    moved, state = rule.call(weights, gradients, rule.initial_state(weights), 3)
    for old, rate, new in zip(weights, rates, moved):
        np.testing.assert_allclose(new, old - rate, rtol=1e-6)


@pytest.mark.parametrize(
    "rule", [update_rules.MetaSGD(0.1), update_rules.LearnedStepSizes(0.1)]
)
def test_rates_are_not_rounded_in_mixed_precision(rule):
    network = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, use_bias=False, dtype="mixed_float16"),
        ]
    )
    network.layers[0].kernel.assign([[10.0]])
    model = keras_meta.MAML(
        network, inner_loss="mse", update_rule=rule, dtype="mixed_float16"
    )
    ones = np.ones((1, 1, 1), "float32")
    # The gradient is 100, so that a step of 0.1 leads to 0.
    x = {"support_x": ones, "support_y": -40 * ones, "query_x": ones}
    assert abs(float(model(x)[0, 0, 0])) < 1e-4


@pytest.mark.parametrize("rate", [0, -1.0, "fast"])
def test_refuses_bad_rates(rate):
    with pytest.raises(ValueError, match="`learning_rate` must.*Received"):
        update_rules.MetaSGD(rate)
