import importlib.util

import pytest

# TF-Agents cannot be installed by plain pip from Python 3.12 on. Only where it
# is not there: an error while it is imported shall fail.
if importlib.util.find_spec("tf_agents") is None:
    pytest.skip("TF-Agents is not installed", allow_module_level=True)

import keras_meta.rl  # noqa: F401  (before TF-Agents is imported)
