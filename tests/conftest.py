import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

pytest.register_assert_rewrite("tests.algorithms.contract")


def pytest_collection_finish(session):
    # `clear_session()` collects garbage: spare it what never dies.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    """Makes every test independent of those before it."""
    keras.utils.clear_session()
    # Or it would look through all that earlier tests have left, each time.
    gc.freeze()
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64():
    """Runs a test in double precision."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
