from keras_meta.episodes.arrays import from_arrays
from keras_meta.episodes.challenge_runs import one_shot_runs
from keras_meta.episodes.class_splits import class_split
from keras_meta.episodes.datasets import from_dataset
from keras_meta.episodes.directories import from_directory
from keras_meta.episodes.directories import from_zip
from keras_meta.episodes.example_pairs import pairs
from keras_meta.episodes.frozen_episodes import freeze
from keras_meta.episodes.frozen_episodes import load_frozen
from keras_meta.episodes.glyph_images import glyphs
from keras_meta.episodes.inspection import describe
from keras_meta.episodes.inspection import show_episode
from keras_meta.episodes.labeled_images import image_folders
from keras_meta.episodes.mixtures import mixed
from keras_meta.episodes.ordinary_examples import examples
from keras_meta.episodes.ordinary_examples import pooled
from keras_meta.episodes.records import from_records
from keras_meta.episodes.regression import harmonics
from keras_meta.episodes.regression import sinusoids
from keras_meta.episodes.tables import from_table
from keras_meta.episodes.texts import from_text
from keras_meta.episodes.tfds_builders import from_tfds

__all__ = [
    "class_split",
    "describe",
    "examples",
    "freeze",
    "from_arrays",
    "from_dataset",
    "from_directory",
    "from_records",
    "from_table",
    "from_text",
    "from_tfds",
    "from_zip",
    "glyphs",
    "harmonics",
    "image_folders",
    "load_frozen",
    "mixed",
    "one_shot_runs",
    "pairs",
    "pooled",
    "show_episode",
    "sinusoids",
]
