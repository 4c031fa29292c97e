import numpy as np
import pytest

from keras_meta import update_rules
from tests.update_rules import contract
from tests.update_rules import learned_rules


class TestCoordinatewiseLSTM(learned_rules.LSTMContract):
    def make_rule(self):
        return update_rules.CoordinatewiseLSTM((3, 2), output_scale=0.3)

    def reference(self, rule, weights, gradients_per_step):
        kernel, bias = np.array(rule.output_kernel), np.array(rule.output_bias)
        states = [
            [np.zeros((weights.size, cell.units))] * 2 for cell in rule.cells
        ]
        per_step = []
        for gradients in gradients_per_step:
            features = learned_rules.numbers(gradients)
            for number, cell in enumerate(rule.cells):
                states[number] = learned_rules.lstm(
                    cell, features, *states[number]
                )
                features = states[number][0]
            weights = weights + 0.3 * (features @ kernel + bias)[:, 0]
            per_step.append(weights)
        return per_step


def test_learned_numbers_by_default():
    rule = update_rules.CoordinatewiseLSTM()
    rule.build_for(contract.variables())
    assert rule.count_params() == 5141


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"units": 20}, "`units` must be a tuple.*units=20.*units=.20,."),
        ({"units": ()}, "`units` must be a tuple.*Received"),
        ({"units": (20, 0)}, "`units` must be an integer of 1 or more.*=0"),
        ({"units": (2.5,)}, "`units` must be an integer of 1 or more.*=2.5"),
        ({"output_scale": 0}, "`output_scale` must.*above 0.*Received"),
        ({"output_scale": -0.1}, "`output_scale` must.*above 0.*Received"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        update_rules.CoordinatewiseLSTM(**arguments)
