"""Runs what the documentation shows, and looks for what it leaves out."""

import functools
import inspect
import pathlib
import re
import textwrap
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# Those of meta-RL are run by its own tests, which may be skipped.
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "algorithms").glob("*.md")),
]
ALGORITHMS = ROOT / "keras_meta" / "algorithms"

FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# What stands before a block that is not run, with the reason.
NOT_RUN = re.compile(r"<!-- not run: \w[^>]* -->\s*\Z")
SECTION = re.compile(r"^(\w+(?:, \w+)*):$", re.MULTILINE)


def name_of(path):
    return str(path.relative_to(ROOT))


def read(path):
    return path.read_text(encoding="utf-8")


def python_blocks(text):
    """Returns the code of a page as `(line number, code)`."""
    blocks = []
    for match in FENCE.finditer(text):
        if match[2] == "python" and not NOT_RUN.search(text[: match.start()]):
            line = text.count("\n", 0, match.start(3))
            blocks.append((line, textwrap.dedent(match[3])))
    return blocks


def run(blocks, filename, namespace):
    for line, code in blocks:
        # Blank lines put the code where it is in the file, for tracebacks.
        exec(compile("\n" * line + code, filename, "exec"), namespace)


# Where a step of training is taken; on the other pages `fit()` passes forward
# once, since the algorithms' own tests train.
TRAINED_PAGES = {
    "README.md",
    "docs/algorithms/fine_tuning.md",
    "docs/algorithms/learned_optimizer.md",
    "docs/algorithms/maml.md",
    "docs/algorithms/reptile.md",
    "docs/algorithms/siamese_network.md",
    "docs/quickstart.md",
    "docs/rl/reptile.md",
    "docs/saving.md",
    "docs/task_library.md",
}


@pytest.mark.parametrize(
    "page",
    [
        # Those of algorithms show what docstrings do, and more of it; the
        # quickstart is an example, too.
        pytest.param(
            page,
            marks=pytest.mark.slow
            if page.parent.name == "algorithms" or page.stem == "quickstart"
            else (),
        )
        for page in PAGES
        if python_blocks(read(page))
    ],
    ids=name_of,
)
def test_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # That it runs is asked here, and not how far it gets.
    trains = name_of(page) in TRAINED_PAGES
    fit = take_a_step if trains else pass_forward
    monkeypatch.setattr(keras.Model, "fit", fit)
    run(python_blocks(read(page)), str(page), {"__name__": page.stem})


def test_blocks_are_found_and_only_left_out_with_a_reason():
    text = textwrap.dedent(
        """
        ```python
        a = 1
        ```

        ```shell
        no python
        ```

        -   In a list:

            ```python
            b = 2
            ```

        <!-- not run: needs a GPU -->
        ```python
        c = 3
        ```

        <!-- not run:  -->
        ```python
        d = 4
        ```
        """
    )
    found = [(2, "a = 1\n"), (12, "b = 2\n"), (22, "d = 4\n")]
    assert python_blocks(text) == found


def public_names(module=keras_meta):
    """Yields `(name, object)` of the classes and functions that are public."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and getattr(value, "__module__", None) == module.__name__
        ]
    for name in names:
        value = getattr(module, name)
        if isinstance(value, types.ModuleType):
            yield from public_names(value)
        elif callable(value):
            yield f"{module.__name__}.{name}", value


def public_objects(module=keras_meta):
    """Returns public objects by their shortest name, each of them once."""
    names = {}
    for name, value in public_names(module):
        names.setdefault(value, []).append(name)
    return {min(found, key=len): value for value, found in names.items()}


def documented_methods(cls):
    """Yields the public methods that this package gives to a class, but for
    those that stand in for another and say no more than it does."""
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        own = method.__module__.startswith("keras_meta")
        stands_in = sum(name in vars(base) for base in cls.__mro__) > 1
        if own and not name.startswith("_"):
            if method.__doc__ or not stands_in:
                yield name, method


def documented_things(module=keras_meta):
    """Returns public objects and their methods by name."""
    things = {}
    for name, value in public_objects(module).items():
        things[name] = value
        if inspect.isclass(value):
            for method_name, method in documented_methods(value):
                things[f"{name}.{method_name}"] = method
    return things


def sections(docstring):
    """Returns the sections of a docstring by their headings."""
    _, *parts = SECTION.split(inspect.cleandoc(docstring))
    return dict(zip(parts[::2], parts[1::2]))


def described_arguments(docstring):
    text = sections(docstring).get("Args", "")
    return re.findall(r"^    (\*{0,2}\w+): ", text, re.MULTILINE)


def is_exception(thing):
    return inspect.isclass(thing) and issubclass(thing, Exception)


def arguments_of(thing):
    """Returns the arguments to describe, as a docstring names them."""
    if inspect.isclass(thing):
        thing = thing.__init__
        if not getattr(thing, "__module__", "").startswith("keras_meta"):
            return []
    stars = {inspect.Parameter.VAR_KEYWORD: "**"}
    stars[inspect.Parameter.VAR_POSITIONAL] = "*"
    return [
        stars.get(parameter.kind, "") + name
        for name, parameter in inspect.signature(thing).parameters.items()
        if name != "self"
    ]


def returns_something(function):
    source = inspect.getsource(function)
    return re.search(r"^\s+return \S|^\s+yield ", source, re.MULTILINE)


def names_in_examples():
    """Returns what examples use without making it."""
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1))
    episodes = keras_meta.episodes.from_arrays(
        images.astype("uint8"),
        np.repeat(np.arange(6), 10),
        ways=3,
        shots=1,
        queries=4,
        meta_batch_size=2,
    )
    network = keras_meta.backbones.mlp((8, 8, 1), (8,), outputs=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {
        "keras": keras,
        "keras_meta": keras_meta,
        "np": np,
        "tf": tf,
        "episodes": episodes,
        "model": keras_meta.MAML(network, inner_loss=loss),
        "network": network,
    }


EXAMPLES = {
    name: python_blocks(sections(thing.__doc__)["Example"])
    for name, thing in documented_things().items()
    if "Example" in sections(thing.__doc__ or "")
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_of_a_docstring_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # That they run is asked here, and not how far they get. The tests of the
    # algorithms train, and so do some pages.
    monkeypatch.setattr(keras.Model, "fit", pass_forward)
    blocks = EXAMPLES[name]
    assert blocks, f"The example of {name} must be a block of ```python."
    namespace = {"__name__": "example", **names_in_examples()}
    run(blocks, f"<example of {name}>", namespace)


# So that episodic models know its arguments.
@functools.wraps(keras.Model.fit)
def pass_forward(self, x, y=None, **kwargs):
    """Stands in for `fit()`: one pass forward, which is not traced."""
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x))
    else:
        batch = (x, y) if y is not None else (x,)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    predictions = self(x, training=True)
    self.compute_loss(x, y, predictions, sample_weight)
    return keras.callbacks.History()


@functools.wraps(keras.Model.fit)
def take_a_step(self, x, y=None, **kwargs):
    """Stands in for `fit()`: one step, which is not traced, on two tasks."""
    batch = next(iter(x)) if isinstance(x, tf.data.Dataset) else (x, y)
    if isinstance(batch[0], dict) and "support_x" in batch[0]:
        batch = tf.nest.map_structure(lambda leaf: leaf[:2], batch)
    settings = {"run_eagerly": True, "steps_per_execution": 1}
    if hasattr(self, "task_mapping"):
        settings["task_mapping"] = "sequential"
    before = {name: getattr(self, name) for name in settings}
    for name, value in settings.items():
        setattr(self, name, value)
    logs = self.train_on_batch(*batch, return_dict=True)
    for name, value in before.items():
        setattr(self, name, value)
    history = keras.callbacks.History()
    history.history = {name: [value] for name, value in logs.items()}
    return history


def test_public_names_are_found():
    names = {name for name, _ in public_names()}
    assert {
        "keras_meta.MAML",
        "keras_meta.algorithms.MAML",
        "keras_meta.backbones.conv4",
        "keras_meta.episodes.glyphs",
        "keras_meta.update_rules.UpdateRule",
        "keras_meta.visualization.plot_episode",
    } <= names
    things = documented_things()
    assert "keras_meta.MAML" in things
    assert "keras_meta.algorithms.MAML" not in things
    assert {"keras_meta.MAML.adapt", "keras_meta.MAML.export"} <= set(things)


def wrong_docstrings(things):
    """Returns what is wrong with docstrings, by the names of the things."""
    wrong = {}
    for name, thing in things.items():
        documented = thing.__doc__ or ""
        if not documented:
            wrong[name] = "has no docstring"
        if described_arguments(documented) != arguments_of(thing):
            wrong[name] = f"does not describe {arguments_of(thing)} under Args"
        if inspect.isfunction(thing) and returns_something(thing):
            if "Returns" not in sections(documented):
                wrong[name] = "does not say what it returns"
    return wrong


def test_docstrings_describe_arguments_and_results():
    assert wrong_docstrings(documented_things()) == {}


def test_docstrings_have_an_example():
    assert not [
        name
        for name, thing in public_objects().items()
        if "Example" not in sections(thing.__doc__ or "")
        and not is_exception(thing)
    ]


def listed_names(page):
    """Returns the names that a page of the API lists."""
    # A function that has the name of its file is listed by where it is, under
    # a heading of its public name.
    entry = r"^::: (\S+)$(?:\n    options:\n      heading: (.+)$)?"
    entries = re.findall(entry, read(page), re.MULTILINE)
    listed = [heading or name for name, heading in entries]
    assert len(listed) == len(set(listed))
    return listed


def test_api_page_lists_every_public_name():
    listed = listed_names(DOCS / "api.md")
    assert set(public_objects()) - set(listed) == set()


def algorithm_files():
    """Returns the files whose models are public, by the models' names."""
    files = {}
    for name, value in public_objects().items():
        stem = value.__module__.removeprefix("keras_meta.algorithms.")
        if stem != value.__module__ and value is not keras_meta.EpisodicModel:
            files[name] = stem
    return files


def test_every_algorithm_has_a_page_and_a_test():
    assert algorithm_files()["keras_meta.MAML"] == "maml"
    for name, stem in algorithm_files().items():
        assert (ALGORITHMS / f"{stem}.py").is_file()
        for expected in (
            DOCS / "algorithms" / f"{stem}.md",
            ROOT / "tests" / "algorithms" / f"test_{stem}.py",
        ):
            assert expected.is_file(), f"{name} needs {name_of(expected)}"


def test_every_argument_of_an_algorithm_is_on_its_page():
    for name, stem in algorithm_files().items():
        page = read(DOCS / "algorithms" / f"{stem}.md")
        listed = re.findall(r"^- \*\*`([^`]+)`\*\*: ", page, re.MULTILINE)
        for argument in arguments_of(public_objects()[name]):
            assert argument in listed, f"{name}: {argument}"


def test_every_page_is_in_the_navigation():
    navigation = re.findall(r": (\S+\.md)$", read(ROOT / "mkdocs.yml"), re.M)
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert sorted(navigation) == sorted(pages)


def without_code(text):
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", text))


def anchors(text):
    """Returns the anchors that mkdocs gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading).lower() for heading in headings]
    return [re.sub(r"[-\s]+", "-", heading.strip()) for heading in words]


def broken_links(page, text):
    """Returns the links of a page that lead nowhere in this project."""
    # On the site there is nothing but the pages.
    root = DOCS if page.is_relative_to(DOCS) else ROOT
    text_of = lambda path: text if path == page else read(path)  # noqa: E731
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or not path.is_relative_to(root):
            broken.append(link)
        elif anchor and anchor not in anchors(text_of(path)):
            broken.append(link)
    return broken


def test_links_lead_somewhere():
    broken = {name_of(page): broken_links(page, read(page)) for page in PAGES}
    assert not {page: links for page, links in broken.items() if links}


def test_a_broken_link_would_be_found():
    text = textwrap.dedent(
        """
        # A title, with `code()`

        [a](api.md) [b](nowhere.md) [c](#a-title-with-code) [d](#no-title)
        [e](algorithms/maml.md#reference) [f](algorithms/maml.md#nothing)
        [g](../README.md) [h](https://keras.io) `[i](code.md)`
        """
    )
    assert broken_links(DOCS / "index.md", text) == [
        "nowhere.md",
        "#no-title",
        "algorithms/maml.md#nothing",
        "../README.md",
    ]


def test_readme_shows_the_lines_of_the_makefile():
    shell = [
        code
        for _, kind, code in FENCE.findall(read(ROOT / "README.md"))
        if kind == "shell"
    ]
    lines = [
        line for code in shell for line in code.splitlines() if ".venv" in line
    ]
    makefile = read(ROOT / "Makefile").replace("$(VENV)", ".venv")
    makefile = makefile.replace("$(PYTHON)", "python3")
    extras = re.findall(r"\.venv/(\w+)\.installed$", makefile, re.MULTILINE)
    made = [makefile.replace("$*", extra) for extra in extras]
    assert len(lines) == 8
    for line in lines:
        assert any(f"\t{line}\n" in commands for commands in made), line
