import math

import numpy as np
import pytest

from keras_meta import update_rules
from tests.update_rules import contract
from tests.update_rules import learned_rules


class TestLSTMMetaLearner(learned_rules.LSTMContract):
    def make_rule(self):
        return update_rules.LSTMMetaLearner(0.05, units=3)

    def reference(self, rule, weights, gradients_per_step):
        gate_weights = [
            [np.array(weight) for weight in pair]
            for pair in (rule.forget_weights, rule.input_weights)
        ]
        gates = [np.zeros((weights.size, 1))] * 2
        state = [np.zeros((weights.size, 3))] * 2
        per_step = []
        for gradients in gradients_per_step:
            numbers = learned_rules.numbers(gradients)
            state = learned_rules.lstm(rule.cell, numbers, *state)
            for number, (kernel, bias) in enumerate(gate_weights):
                inputs = [state[0], weights[:, None], gates[number]]
                inner = np.concatenate(inputs, axis=1) @ kernel + bias
                gates[number] = learned_rules.sigmoid(inner)
            forget, rate = gates[0][:, 0], gates[1][:, 0]
            weights = forget * weights - rate * gradients
            per_step.append(weights)
        return per_step


def test_with_open_and_constant_gates_it_is_gradient_descent():
    variables = contract.variables()
    rule = update_rules.LSTMMetaLearner()
    rule.build_for(variables)
    for bias, start in (
        (rule.forget_weights[1], 40.0),
        (rule.input_weights[1], math.log(0.1 / 0.9)),
    ):
        bias.assign([start])
    for kernel, _ in (rule.forget_weights, rule.input_weights):
        kernel.assign(np.zeros(kernel.shape))
    descent = update_rules.GradientDescent(0.1)
    weights, steps = learned_rules.random_steps(variables, dtype="float32")
    found = learned_rules.take_steps(rule, weights, steps)
    expected = learned_rules.take_steps(descent, weights, steps)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(
            learned_rules.flat(ours), learned_rules.flat(theirs), rtol=1e-5
        )


def test_gates_start_near_what_is_asked_for():
    variables = contract.variables()
    rule = update_rules.LSTMMetaLearner(0.2, forget_gate=0.9)
    rule.build_for(variables)
    weights, (gradients,) = learned_rules.random_steps(variables, 1, "float32")
    state = rule.initial_state(weights)
    _, (_, forget_gates, input_gates) = rule.call(weights, gradients, state, 0)
    np.testing.assert_allclose(forget_gates, 0.9 + 0 * forget_gates, rtol=0.02)
    np.testing.assert_allclose(input_gates, 0.2 + 0 * input_gates, rtol=0.1)


def test_learned_numbers_by_default():
    rule = update_rules.LSTMMetaLearner()
    rule.build_for(contract.variables())
    assert rule.count_params() == 1886


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": 0}, "`learning_rate` must.*above 0.*Received"),
        ({"learning_rate": 1}, "`learning_rate` must.*less than 1.*Received"),
        ({"forget_gate": 0}, "`forget_gate` must.*above 0.*Received"),
        ({"forget_gate": 1.0}, "`forget_gate` must.*less than 1.*Received"),
        ({"units": 0}, "`units` must be an integer of 1 or more.*Received"),
        ({"units": (20,)}, "`units` must be an integer of 1 or more.*Received"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        update_rules.LSTMMetaLearner(**arguments)
