import keras
import pytest

from keras_meta import update_rules
from tests.update_rules import contract


class TestAdam(contract.RuleContract):
    def make_rule(self):
        return update_rules.Adam(0.02, beta_1=0.8, beta_2=0.95)

    def make_optimizer(self):
        return keras.optimizers.Adam(0.02, beta_1=0.8, beta_2=0.95)


class TestAdamWithoutMomentum(TestAdam):
    def make_rule(self):
        return update_rules.Adam(0.02, beta_1=0.0)

    def make_optimizer(self):
        return keras.optimizers.Adam(0.02, beta_1=0.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": -1}, "`learning_rate` must.*Received"),
        ({"beta_1": 1.0}, "`beta_1` must.*less than 1.*beta_1=1.0"),
        ({"beta_2": -0.1}, "`beta_2` must.*Received"),
        ({"epsilon": 0}, "`epsilon` must.*Received"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        update_rules.Adam(**arguments)
