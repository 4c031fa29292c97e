"""Runs the pages and examples of meta-RL, and looks for what they leave out."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
import keras_meta.rl
from tests import test_docs as docs

PAGES = sorted((docs.DOCS / "rl").glob("*.md"))
THINGS = docs.documented_things(keras_meta.rl)
EXAMPLES = {
    name: docs.python_blocks(docs.sections(thing.__doc__)["Example"])
    for name, thing in THINGS.items()
    if "Example" in docs.sections(thing.__doc__ or "")
}


@pytest.fixture(autouse=True)
def pages_do_not_train(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # That they run is asked here. The tests of the agents train.
    monkeypatch.setattr(
        keras.Model, "fit", lambda self, x, **kwargs: next(iter(x))
    )
    monkeypatch.setattr(
        keras.Model, "evaluate", lambda self, x, **kwargs: next(iter(x))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if docs.python_blocks(docs.read(page))],
    ids=docs.name_of,
)
def test_page_runs_from_top_to_bottom(page):
    docs.run(
        docs.python_blocks(docs.read(page)), str(page), {"__name__": page.stem}
    )


def names_in_examples():
    """Returns what examples use without making it."""
    import tf_agents
    from tf_agents.specs import BoundedTensorSpec

    environment = keras_meta.rl.environments.PointNavigation(horizon=3)
    agent = keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        keras_meta.rl.KerasDistributionNetwork(
            environment.observation_spec(),
            environment.action_spec(),
            keras_meta.backbones.mlp((2,), (4,), None),
        ),
        rollouts=2,
    )
    return {
        "BoundedTensorSpec": BoundedTensorSpec,
        "agent": agent,
        "environment": environment,
        "keras": keras,
        "keras_meta": keras_meta,
        "np": np,
        "tf": tf,
        "tf_agents": tf_agents,
    }


# What they show, the tests of the agents do, too; these take longest to trace.
LONG = {
    "keras_meta.rl.CAVIAAgent",
    "keras_meta.rl.LearnedOptimizerAgent",
    "keras_meta.rl.MetaAgent",
    "keras_meta.rl.MetaGenRLAgent",
    "keras_meta.rl.PEARLAgent",
    "keras_meta.rl.SimilarTaskAgent",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
        for name in EXAMPLES
    ],
)
def test_example_of_a_docstring_runs(name):
    assert EXAMPLES[name], (
        f"The example of {name} must be a block of ```python."
    )
    namespace = {"__name__": "example", **names_in_examples()}
    docs.run(EXAMPLES[name], f"<example of {name}>", namespace)


def test_docstrings_describe_arguments_and_results():
    assert docs.wrong_docstrings(THINGS) == {}


def test_classes_have_an_example():
    assert not [
        name
        for name, thing in docs.public_objects(keras_meta.rl).items()
        if inspect.isclass(thing)
        and "Example" not in docs.sections(thing.__doc__ or "")
    ]


def test_the_api_page_lists_every_public_name():
    listed = docs.listed_names(docs.DOCS / "rl" / "api.md")
    assert set(docs.public_objects(keras_meta.rl)) - set(listed) == set()
