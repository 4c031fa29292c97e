import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    # Each starts several processes.
    for item in items:
        if item.path.parent == FOLDER:
            item.add_marker(pytest.mark.slow)
