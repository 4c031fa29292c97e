from keras_meta.episodes.arrays import from_arrays
from keras_meta.episodes.challenge_runs import one_shot_runs
from keras_meta.episodes.class_splits import class_split
from keras_meta.episodes.example_pairs import pairs
from keras_meta.episodes.glyph_images import glyphs
from keras_meta.episodes.labeled_images import image_folders
from keras_meta.episodes.ordinary_examples import examples
from keras_meta.episodes.ordinary_examples import pooled
from keras_meta.episodes.regression import harmonics
from keras_meta.episodes.regression import sinusoids

__all__ = [
    "class_split",
    "examples",
    "from_arrays",
    "glyphs",
    "harmonics",
    "image_folders",
    "one_shot_runs",
    "pairs",
    "pooled",
    "sinusoids",
]
