"""Setup script. The rest of the project's settings are in pyproject.toml."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).resolve().parent

# Read, and not imported: the package needs TensorFlow to be imported.
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (HERE / "keras_meta" / "version.py").read_text(encoding="utf-8"),
    re.MULTILINE,
).group(1)

# TF-Agents 0.19 pins releases that have no wheels for Python 3.12 and later,
# so that its extra is empty there.
BEFORE_3_12 = "; python_version < '3.12'"

# What `ruff format` makes of a file changes from one 0.x to the next.
RUFF = "ruff>=0.17,<0.18"

DATASETS = [
    "tensorflow-datasets",
    # What it needs, and needs Python 3.11 from 1.14 on. Where an index does
    # not tell that, older releases of pip search without end.
    "etils<1.14; python_version < '3.11'",
    # What it needs to prepare a data set, and does not ask for.
    "importlib_resources",
]

RL = [
    requirement + BEFORE_3_12
    for requirement in (
        "tf-agents==0.19.0",
        # What TF-Agents needs, and TensorFlow no longer brings with it.
        "tf_keras",
        "tensorboard",
        "gymnasium[mujoco]",
    )
]

EXTRAS = {
    "datasets": DATASETS,
    "rl": RL,
    "visualization": ["matplotlib"],
    # The API pages lay out signatures with ruff.
    "docs": ["mkdocs-material", "mkdocstrings[python]", RUFF],
    "test": [*DATASETS, *RL, "matplotlib", "pytest", "pytest-xdist", RUFF],
}
EXTRAS["all"] = sorted({line for lines in EXTRAS.values() for line in lines})

setuptools.setup(
    name="keras-meta",
    version=VERSION,
    description="Few-shot learning, meta-learning and meta-RL for Keras.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The keras_meta authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=setuptools.find_packages(include=["keras_meta", "keras_meta.*"]),
    python_requires=">=3.10",
    # The oldest releases on which the tests were run and passed.
    install_requires=["tensorflow>=2.16.2", "keras>=3.7.0"],
    extras_require=EXTRAS,
    keywords="keras tensorflow few-shot learning meta-learning maml meta-rl",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
