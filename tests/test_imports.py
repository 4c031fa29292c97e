"""Reads the source of the package and fails where an import breaks a rule."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

import keras_meta

PACKAGE = pathlib.Path(keras_meta.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))

OPTIONAL = {"tf_agents", "tensorflow_datasets", "matplotlib", "PIL"}

ANOTHER_KERAS = ("keras.src.", "tensorflow.keras.", "tf_keras.")

# What is at the bottom, and must not know what is built on it.
CORE = {
    "adapting_weights",
    "arguments",
    "backbones",
    "compiled_dense",
    "compiled_loop",
    "conjugate_gradients",
    "distances",
    "divergence",
    "episode",
    "figures",
    "fused_normalization",
    "flat_states",
    "gradients",
    "graph_checks",
    "inner_loop",
    "inner_steps",
    "layer_calls",
    "losses",
    "masks",
    "metrics",
    "normalization",
    "pair",
    "per_step_normalization",
    "replicas",
    "resuming",
    "ridge_regression",
    "rule_optimizer",
    "task_mapping",
    "update_rules",
    "warmup_requests",
    "whole_files",
    "xla",
}
# Files of `algorithms` that are made for the others to build on.
BASES = {
    "adapted_embedding_model",
    "amortized_model",
    "base",
    "class_labels",
    "dense_heads",
    "embedding_model",
    "inner_loop_model",
    "linear_head_model",
    "metric_model",
    "network_copy",
    "neural_process",
    "perceptron",
    "pretraining",
    "query_metrics",
    "random_draws",
    "sequence_model",
    "unrolled_model",
}

MUST_NOT_IMPORT = {
    **dict.fromkeys(
        CORE,
        {
            "algorithms",
            "episodes",
            "evaluation",
            "export",
            "rl",
            "visualization",
        },
    ),
    "episodes": {"algorithms", "evaluation", "export", "rl", "visualization"},
    "algorithms": {"episodes", "evaluation", "rl", "visualization"},
}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module, is_package):
    return module if is_package else module.rpartition(".")[0]


def imported_names(node, package):
    """Yields the full dotted names that an import statement names."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        start = node.module or ""
        if node.level:
            above = package.split(".")
            above = above[: len(above) - node.level + 1]
            start = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            yield f"{start}.{alias.name}"


def all_imports(source, module, is_package=False):
    """Returns the names of all imports, wherever they are."""
    return {
        name
        for node in ast.walk(ast.parse(source))
        for name in imported_names(node, package_of(module, is_package))
    }


def imports_at_import_time(source, module):
    """Returns the names of imports that run when the module is imported."""
    names = set()

    def visit(node):
        inside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        if not isinstance(node, inside):
            names.update(imported_names(node, module))
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(ast.parse(source))
    return names


def optional_imports(source, module):
    """Returns the optional packages that a module cannot do without."""
    roots = {
        name.partition(".")[0]
        for name in imports_at_import_time(source, module)
    }
    allowed = set()
    if module == "keras_meta.rl" or module.startswith("keras_meta.rl."):
        allowed = {"tf_agents"}
    return (roots & OPTIONAL) - allowed


def uses_of_another_keras(source, module):
    """Returns where `tf.keras` or the private `keras.src` is used."""
    found = {
        name
        for name in all_imports(source, module)
        if f"{name}.".startswith(ANOTHER_KERAS)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name in ("tf.keras", "tensorflow.keras", "keras.src"):
                found.add(name)
    return found


def broken_directions(source, module, is_package=False):
    """Returns the imports that go against the direction of the layers."""
    parts = module.split(".")[1:]
    layer = parts[0] if parts else ""
    forbidden = set(MUST_NOT_IMPORT.get(layer, ()))
    if layer != "rl":
        forbidden.add("rl")
    own = parts[1] if len(parts) > 1 else None
    found = set()
    for name in all_imports(source, module, is_package):
        root, *rest = name.split(".")
        if root != "keras_meta" or not rest:
            continue
        if rest[0] in forbidden:
            found.add(name)
        # The folder's `__init__` lists them all; a file builds on bases only.
        if layer == rest[0] == "algorithms" and own is not None:
            if len(rest) > 1 and rest[1] not in BASES | {own}:
                found.add(name)
    return found


def breaches(check):
    """Runs a check on every file; returns what it found, by file."""
    found = {}
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        result = check(path, source, module_name(path))
        if result:
            found[str(path.relative_to(PACKAGE))] = sorted(result)
    return found


def test_the_files_are_found():
    names = {module_name(path) for path in FILES}
    assert "keras_meta" in names
    assert "keras_meta.episodes" in names
    assert "keras_meta.algorithms.maml" in names
    assert "keras_meta.inner_loop" in names


def test_optional_packages_are_imported_where_they_are_used():
    assert not breaches(lambda path, *rest: optional_imports(*rest))


def test_only_keras_3_is_used_and_only_what_is_public():
    assert not breaches(lambda path, *rest: uses_of_another_keras(*rest))


def test_imports_run_one_way():
    assert not breaches(
        lambda path, source, module: broken_directions(
            source, module, path.name == "__init__.py"
        )
    )


def test_an_optional_import_would_be_found():
    for source, found in (
        ("import matplotlib.pyplot as plt", {"matplotlib"}),
        ("from PIL import Image", {"PIL"}),
        ("try:\n    import PIL\nexcept ImportError:\n    pass", {"PIL"}),
        ("import os, tensorflow_datasets", {"tensorflow_datasets"}),
        ("class A:\n    from tf_agents import x", {"tf_agents"}),
        ("def f():\n    import matplotlib", set()),
        ("from keras_meta import matplotlib", set()),
    ):
        assert optional_imports(source, "keras_meta.episodes.new") == found
        in_rl = optional_imports(source, "keras_meta.rl.new")
        assert in_rl == found - {"tf_agents"}


def test_another_keras_would_be_found():
    for source in (
        "import tensorflow as tf\ntf.keras.layers.Dense(1)",
        "def f():\n    return tf.keras",
        "from tensorflow.keras import layers",
        "from tensorflow import keras",
        "import tensorflow.keras",
        "import tensorflow.keras as keras",
        "from keras.src import backend",
        "from keras import src",
        "import keras.src.utils",
        "import keras\nkeras.src.utils.f()",
    ):
        assert uses_of_another_keras(source, "keras_meta.new")
    allowed = "import keras\nfrom keras import layers\n'tf.keras'  # tf.keras"
    assert not uses_of_another_keras(allowed, "keras_meta.new")


def test_an_import_in_the_wrong_direction_would_be_found():
    for module, source in (
        ("inner_loop", "from keras_meta import episodes"),
        ("inner_loop", "import keras_meta.algorithms.maml"),
        ("inner_loop", "from . import evaluation"),
        ("update_rules.new", "from keras_meta.export import f"),
        ("update_rules.new", "from ..algorithms import maml"),
        ("backbones", "def f():\n    from keras_meta import visualization"),
        ("episodes.new", "from keras_meta.algorithms import base"),
        ("algorithms.new", "from keras_meta import episodes"),
        ("algorithms.new", "from keras_meta.algorithms import maml"),
        ("algorithms.new", "from keras_meta.algorithms.maml import MAML"),
        ("algorithms.new", "from . import maml"),
        ("algorithms.new", "from .maml import MAML"),
        ("evaluation", "from keras_meta import rl"),
        ("visualization.new", "import keras_meta.rl.agents"),
    ):
        assert broken_directions(source, f"keras_meta.{module}"), source
    assert broken_directions("from keras_meta import rl", "keras_meta", True)


def test_an_import_in_the_right_direction_is_let_pass():
    for module, source in (
        ("inner_loop", "from keras_meta import normalization"),
        ("episodes.arrays", "from keras_meta.episodes import meta_batches"),
        ("episodes.arrays", "from keras_meta import episode"),
        ("algorithms.maml", "from keras_meta import export"),
        ("algorithms.maml", "from keras_meta.algorithms import base"),
        ("algorithms.maml", "from .inner_loop_model import InnerLoopModel"),
        ("evaluation", "from keras_meta.algorithms.maml import MAML"),
        ("rl.agents", "from keras_meta import rl"),
        ("rl.agents", "from keras_meta import algorithms"),
        ("rl.agents", "import tensorflow as tf"),
    ):
        assert not broken_directions(source, f"keras_meta.{module}"), source
    lists = "from keras_meta.algorithms.maml import MAML"
    assert not broken_directions(lists, "keras_meta.algorithms", True)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(PACKAGE.parent),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def fresh():
    """What a process of its own saw, importing the package twice."""
    code = """
import json
import sys
import keras
import tensorflow
before = set(sys.modules)
backend = keras.config.backend
keras.config.backend = lambda: "jax"
try:
    import keras_meta
except Exception as error:
    refused = [type(error).__name__, str(error)]
keras.config.backend = backend
import keras_meta
json.dump([refused, sorted(set(sys.modules) - before)], sys.stdout)
"""
    result = run_python(code, KERAS_BACKEND="tensorflow")
    assert result.returncode == 0, result.stderr
    refused, modules = json.loads(result.stdout)
    return refused, {name.partition(".")[0] for name in modules}


def test_importing_the_package_loads_no_optional_package(fresh):
    _, packages = fresh
    assert "keras_meta" in packages
    # Beside those that Keras and TensorFlow load by themselves.
    assert not packages & OPTIONAL


def test_another_backend_is_an_error_that_names_it_and_the_remedy(fresh):
    (kind, message), _ = fresh
    assert kind == "ImportError"
    assert "needs Keras on TensorFlow" in message
    assert "Received: the Keras backend 'jax'" in message
    assert "KERAS_BACKEND=tensorflow" in message


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_the_remedy_is_named_where_the_backend_cannot_be_imported(backend):
    # Keras fails by itself where JAX, or SciPy for NumPy, is not installed.
    result = run_python("import keras_meta", KERAS_BACKEND=backend)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: keras_meta needs Keras on TensorFlow")
    assert backend in last
    assert "KERAS_BACKEND=tensorflow" in last
