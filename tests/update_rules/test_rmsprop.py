import keras
import pytest

from keras_meta import update_rules
from tests.update_rules import contract


class TestRMSprop(contract.RuleContract):
    def make_rule(self):
        return update_rules.RMSprop(0.02, rho=0.8, epsilon=1e-5)

    def make_optimizer(self):
        return keras.optimizers.RMSprop(0.02, rho=0.8, epsilon=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": 0}, "`learning_rate` must.*Received"),
        ({"rho": 1.0}, "`rho` must.*less than 1.*rho=1.0"),
        ({"epsilon": 0}, "`epsilon` must.*Received"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        update_rules.RMSprop(**arguments)
