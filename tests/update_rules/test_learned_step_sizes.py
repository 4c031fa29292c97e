import numpy as np
import pytest

from keras_meta import update_rules
from tests.update_rules import contract


class TestLearnedStepSizes(contract.RuleContract):
    def make_rule(self):
        return update_rules.LearnedStepSizes(0.1, steps=2)


def test_each_layer_and_step_has_a_rate_and_the_last_one_stays():
    variables = contract.variables()
    rule = update_rules.LearnedStepSizes(0.1, steps=2)
    rule.build_for(variables)
    assert rule.rates.shape == (2, 2)
    rule.rates.assign([[1.0, 2.0], [3.0, 4.0]])
    weights = [np.zeros(v.shape, "float32") for v in variables]
    gradients = [np.ones_like(weight) for weight in weights]
    for step, (first, second) in enumerate([(1, 2), (3, 4), (3, 4)]):
        moved, _ = rule.call(weights, gradients, (), step)
        # The kernel and the bias of a layer share a rate.
        for weight, rate in zip(moved, (first, first, second, second)):
            np.testing.assert_array_equal(weight, np.full(weight.shape, -rate))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": 0}, "`learning_rate` must.*Received"),
        ({"steps": 0}, "`steps` must.*Received: steps=0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        update_rules.LearnedStepSizes(**arguments)
