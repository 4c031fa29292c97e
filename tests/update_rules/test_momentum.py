import keras
import pytest

from keras_meta import update_rules
from tests.update_rules import contract


class TestMomentum(contract.RuleContract):
    def make_rule(self):
        return update_rules.Momentum(0.05, momentum=0.8)

    def make_optimizer(self):
        return keras.optimizers.SGD(0.05, momentum=0.8)


class TestNesterov(TestMomentum):
    def make_rule(self):
        return update_rules.Momentum(0.05, momentum=0.8, nesterov=True)

    def make_optimizer(self):
        return keras.optimizers.SGD(0.05, momentum=0.8, nesterov=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": 0}, "`learning_rate` must.*Received"),
        ({"momentum": 1.5}, "`momentum` must.*Received: momentum=1.5"),
        ({"nesterov": "yes"}, "`nesterov` must.*Received"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        update_rules.Momentum(**arguments)
