import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    # Each is a process of its own, and imports and trains for half a minute.
    for item in items:
        if item.path.parent == FOLDER and item.path.stem != "test_quickstart":
            item.add_marker(pytest.mark.slow)
