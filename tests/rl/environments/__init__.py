import pytest

pytest.register_assert_rewrite("tests.rl.environments.contract")
