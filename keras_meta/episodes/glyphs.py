import collections
import hashlib
import numbers
import os
import unicodedata
import uuid
import warnings

import numpy as np

from keras_meta import arguments

# Raise this when the pictures change but the tables below do not.
_VERSION = 1

# Where a picture occurs in two scripts, the earlier one of this table has it.
# What is left out was looked at: playing cards, dominoes, hexagrams, faces
# and circled digits cannot be told apart at 28 x 28 pixels, and the other
# mathematical alphabets are Latin and Greek over again.
_SCRIPTS = {
    "latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF))
    + ((0x2C60, 0x2C7F), (0xA720, 0xA7FF)),
    "greek": ((0x370, 0x3FF),),
    "cyrillic": ((0x400, 0x52F), (0xA640, 0xA69F)),
    "armenian": ((0x530, 0x58F),),
    "georgian": ((0x10A0, 0x10FF), (0x2D00, 0x2D2F)),
    "hebrew": ((0x590, 0x5FF),),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F)),
    "nko": ((0x7C0, 0x7FF),),
    "lao": ((0xE80, 0xEFF),),
    "tifinagh": ((0x2D30, 0x2D7F),),
    "ogham": ((0x1680, 0x169F),),
    "old_italic": ((0x10300, 0x1032F),),
    "phonetic": ((0x250, 0x2AF), (0x1D00, 0x1DBF)),
    "canadian_syllabics": ((0x1400, 0x167F),),
    "digits_and_signs": ((0x21, 0x40), (0x5B, 0x60), (0x7B, 0x7E))
    + ((0xA1, 0xBF), (0x2010, 0x205E), (0x20A0, 0x214F)),
    "mathematical_operators": ((0x2200, 0x22FF), (0x2A00, 0x2AFF)),
    "arrows": ((0x2190, 0x21FF), (0x27F0, 0x27FF), (0x2900, 0x297F)),
    "geometric_shapes": ((0x25A0, 0x25FF),),
    "box_drawing": ((0x2500, 0x257F),),
    "braille": ((0x2801, 0x283F),),
    "technical": ((0x2300, 0x23FF),),
    "dingbats": ((0x2700, 0x2775), (0x2794, 0x27BF)),
    "miscellaneous_symbols": ((0x2600, 0x26FF),),
}

# The faces in matplotlib that are worth drawing with. The first that has a
# character stands for it when characters are compared. The true italics are
# left out: they draw some letters as others (the Cyrillic t as an m).
_FACES = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "STIXGeneral",
    "DejaVuSans-Bold",
    "DejaVuSerif-Bold",
    "DejaVuSansMono-Bold",
    "STIXGeneralBol",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
)

# Characters are drawn this many times too large and then scaled down.
_OVERSAMPLING = 4


class Glyphs(
    collections.namedtuple(
        "Glyphs", ["images", "labels", "characters", "scripts"]
    )
):
    """What `keras_meta.episodes.glyphs()` returns.

    Attributes:
        images: Array `[classes * examples, size, size, 1]`, uint8, white on
            black: 0 where there is no ink.
        labels: Array `[classes * examples]`, int32, the class of each image.
            The images of a class follow each other.
        characters: Tuple of strings of length 1, the character of each
            class.
        scripts: Tuple of strings, the script of each class.
    """

    __slots__ = ()


def glyphs(examples=20, size=28, seed=0, cache=True):
    """Draws characters of many scripts: images for few-shot learning.

    A stand-in for Omniglot that needs no download. Each class is a character
    and belongs to a script. Its images are drawn with the fonts that come
    with matplotlib, in different faces, turned, slanted, stretched, moved
    and with thinner or thicker strokes at random. Characters that look alike
    (the Latin, Greek and Cyrillic A, say) make one class.

    The first call takes seconds and keeps its result beside the data sets of
    Keras, in `~/.keras/datasets/keras_meta` (or below `KERAS_HOME`).

    Args:
        examples: Integer, the images of each class. Defaults to `20`.
        size: Integer, the height and width of an image, at least 8. Defaults
            to `28`.
        seed: Integer, for the random changes. The classes do not depend on
            it. Defaults to `0`.
        cache: Boolean, whether to keep the result in a file, and to read it
            from there. Defaults to `True`.

    Returns:
        A `Glyphs` tuple: `images`, `labels`, `characters` and `scripts`. The
        classes are ordered by script and then by code point.

    Raises:
        ValueError: Where an argument is not as described.
        ImportError: Where matplotlib or Pillow is not installed.

    Example:

    ```python
    data = keras_meta.episodes.glyphs()
    train, test = keras_meta.episodes.class_split(
        data.labels, groups=data.scripts
    )
    episodes = keras_meta.episodes.from_arrays(
        data.images, data.labels, ways=5, shots=1, queries=15, classes=train
    )
    ```
    """
    arguments.check_positive_integer("examples", examples)
    arguments.check_positive_integer("size", size)
    if size < 8:
        raise ValueError(
            "`size` must be at least 8, or characters cannot be told apart. "
            f"Received: size={size}."
        )
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise ValueError(f"`seed` must be an integer. Received: seed={seed!r}.")
    path = _cache_path(examples, size, seed)
    arrays = _read(path) if cache else None
    if arrays is None:
        arrays = _build(examples, size, seed)
        if cache:
            _write(path, arrays)
    images, characters, scripts = arrays
    labels = np.arange(len(characters), dtype="int32").repeat(examples)
    characters, scripts = tuple(characters.tolist()), tuple(scripts.tolist())
    return Glyphs(images, labels, characters, scripts)


def _cache_path(examples, size, seed):
    """Returns the name of the cache file, another for all other settings."""
    matplotlib, pillow = _import_libraries()
    settings = (
        (_VERSION, _SCRIPTS, _FACES, _OVERSAMPLING),
        (int(examples), int(size), int(seed)),
        # The fonts, what draws them, and what a character is.
        (matplotlib.__version__, pillow.__version__),
        unicodedata.unidata_version,
    )
    fingerprint = hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
    home = os.environ.get("KERAS_HOME", os.path.join("~", ".keras"))
    folder = os.path.join(os.path.expanduser(home), "datasets", "keras_meta")
    return os.path.join(folder, f"glyphs-{fingerprint}.npz")


def _import_libraries():
    try:
        import matplotlib
        import PIL
    except ImportError as error:
        raise ImportError(
            "`keras_meta.episodes.glyphs()` draws with Pillow and the fonts "
            "of matplotlib. Install both with "
            "`pip install 'keras-meta[visualization]'`."
        ) from error
    return matplotlib, PIL


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["images"], file["characters"], file["scripts"]
    except FileNotFoundError:
        return None
    except Exception:
        # A damaged file fails in many ways, and all it costs is time.
        return None


def _write(path, arrays):
    names = ("images", "characters", "scripts")
    # Only a whole file gets the name that is read, and two processes that
    # write at once do not meet.
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                np.savez_compressed(file, **dict(zip(names, arrays)))
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
    except OSError as error:
        warnings.warn(
            f"The glyphs could not be kept in {path} and will be drawn anew "
            f"the next time: {error}. Set KERAS_HOME to a folder that can be "
            "written, or pass `cache=False`."
        )


def _build(examples, size, seed):
    """Returns the images, the characters and the scripts, as arrays."""
    fonts = _load_fonts(size)
    classes = _choose_classes()
    images = [
        _draw_examples(character, fonts, examples, size, seed)
        for _, character in classes
    ]
    scripts, characters = zip(*classes)
    return np.concatenate(images), np.array(characters), np.array(scripts)


def _choose_classes():
    """Returns pairs of a script and a character, no two of which look alike.

    Characters are compared at 28 x 28 whatever size is asked for, so that
    the classes are always the same.
    """
    size = 28
    fonts = _load_fonts(size)
    classes, pictures = [], []
    for script, ranges in _SCRIPTS.items():
        for first, last in ranges:
            for character in map(chr, range(first, last + 1)):
                if not _stands_alone(character):
                    continue
                picture = next(_draw_faces(character, fonts), None)
                if picture is not None:
                    classes.append((script, character))
                    pictures.append(_draw_standard(picture, size))
    chosen = []
    alike = _look_alike(np.stack(pictures))
    for index in range(len(classes)):
        if not alike[index, chosen].any():
            chosen.append(index)
    return sorted(classes[index] for index in chosen)


def _stands_alone(character):
    """Tells letters, digits and signs from all that belongs to another.

    Such as combining marks, blanks, superscripts, and letters that Unicode
    takes apart into a letter and an accent.
    """
    category = unicodedata.category(character)
    return (
        category[0] in "LNPS"
        and category not in ("Lm", "Sk")
        and unicodedata.is_normalized("NFKD", character)
    )


def _load_fonts(size):
    """Returns pairs of a font to draw with and the code points it has."""
    matplotlib, _ = _import_libraries()
    from matplotlib import ft2font
    from PIL import ImageFont

    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    fonts = []
    for face in _FACES:
        path = os.path.join(folder, f"{face}.ttf")
        # The other layout engine of Pillow is not installed everywhere.
        font = ImageFont.truetype(
            path,
            size * _OVERSAMPLING,
            layout_engine=ImageFont.Layout.BASIC,
        )
        fonts.append((font, set(ft2font.FT2Font(path).get_charmap())))
    return fonts


def _draw_faces(character, fonts):
    """Yields pictures of a character, one in each face that has it."""
    from PIL import Image
    from PIL import ImageDraw

    for font, code_points in fonts:
        if ord(character) not in code_points:
            continue
        left, top, right, bottom = font.getbbox(character)
        frame = Image.new("L", (right - left + 2, bottom - top + 2))
        pen = ImageDraw.Draw(frame)
        pen.text((1 - left, 1 - top), character, fill=255, font=font)
        edges = frame.getbbox()
        if edges:
            left, top, right, bottom = edges
            # Without a margin, edges would end in a hard step when turned.
            yield frame.crop((left - 1, top - 1, right + 1, bottom + 1))


def _draw_standard(picture, size):
    """Returns the picture of a character that others are compared with.

    It is stretched a little towards a square: letters that differ only in
    their proportions look alike.
    """
    sides = np.array(picture.size)
    spans = np.minimum(1.3 * sides, sides.max()) / sides.max()
    matrix = np.diag(0.78 * size * _OVERSAMPLING * spans / sides)
    return _shrink(_place(picture, matrix, np.zeros(2), size)[None])[0]


def _look_alike(pictures):
    """Returns a matrix that tells which pictures look alike.

    They do where the ink of each lies on the ink of the other, but for 12
    pixels: a pixel counts from a distance of 2, and twice from 3 on. At 12
    the same letter in another weight is taken for the same, and O and D, i
    and j, or Arabic letters with other dots are not.
    """
    ink = pictures >= 100
    near = _thicken(ink)
    distance = 2.0 - near - _thicken(near)
    count = len(pictures)
    ink, distance = ink.reshape(count, -1), distance.reshape(count, -1)
    astray = ink.astype("float32") @ distance.astype("float32").T
    return np.maximum(astray, astray.T) <= 12


def _draw_examples(character, fonts, examples, size, seed):
    """Returns the images of a class, uint8 `[examples, size, size, 1]`."""
    # A stream for each class: what it looks like depends on no other.
    generator = np.random.default_rng([seed % 2**64, ord(character)])
    faces = list(_draw_faces(character, fonts))
    order = generator.permutation(len(faces))
    numbers = generator.uniform(-1, 1, (examples, 7))
    pictures = np.stack(
        [
            _place_at_random(faces[order[index % len(faces)]], row, size)
            for index, row in enumerate(numbers[:, :6])
        ]
    )
    return _shrink(_change_strokes(pictures, numbers[:, 6]))[..., None]


def _place_at_random(picture, numbers, size):
    """Places a picture by six numbers from -1 to 1."""
    turn, slant, stretch, span, right, down = numbers
    angle = np.deg2rad(12 * turn)
    rotation = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    shear = [[1, 0.2 * slant], [0, 1]]
    scale = np.diag(np.exp([0.15 * stretch, -0.15 * stretch]))
    matrix = rotation @ np.array(shear) @ scale
    # However it is turned, it fills two thirds to most of the frame.
    side = size * _OVERSAMPLING
    spans = np.abs(matrix) @ picture.size
    factor = (0.75 + 0.1 * span) * side / spans.max()
    room = (side - factor * spans) / 2 - _OVERSAMPLING
    shift = np.array([right, down]) * np.clip(room, 0, 0.07 * side)
    return _place(picture, factor * matrix, shift, size)


def _place(picture, matrix, shift, size):
    """Draws a picture in a frame, `[size, size]` times the oversampling.

    Args:
        picture: Pillow image.
        matrix: Array `[2, 2]`, what the picture is multiplied with.
        shift: Array `[2]`, the way from the middle of the frame to the
            middle of the picture.
        size: Integer.
    """
    from PIL import Image

    side = size * _OVERSAMPLING
    # Pillow asks the other way around: where a point of the frame is from.
    inverse = np.linalg.inv(matrix)
    origin = np.array(picture.size) / 2 - inverse @ (side / 2 + shift)
    frame = picture.transform(
        (side, side),
        Image.Transform.AFFINE,
        np.column_stack([inverse, origin]).ravel(),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(frame)


def _change_strokes(pictures, numbers):
    """Makes strokes thinner or thicker by numbers from -1 to 1."""
    pictures = pictures.copy()
    for chosen, change, undo in (
        (numbers < -0.5, _thin, _thicken),
        (numbers > 0, _thicken, _thin),
        (numbers > 0.5, _thicken, _thin),
    ):
        before = pictures[chosen]
        after = change(before)
        # A change that cannot be undone broke a stroke or closed a gap.
        lost = np.abs(undo(after).astype("int16") - before).sum((1, 2))
        kept = lost <= 0.1 * before.sum((1, 2))
        pictures[np.flatnonzero(chosen)[kept]] = after[kept]
    return pictures


def _thicken(pictures):
    """Spreads the ink of `[count, height, width]` by a pixel all around."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    rows = np.maximum(padded[:, :-2], padded[:, 2:])
    rows = np.maximum(rows, padded[:, 1:-1])
    columns = np.maximum(rows[:, :, :-2], rows[:, :, 2:])
    return np.maximum(columns, rows[:, :, 1:-1])


def _thin(pictures):
    return 255 - _thicken(255 - pictures)


def _shrink(pictures):
    """Averages away the oversampling."""
    count, side, _ = pictures.shape
    size = side // _OVERSAMPLING
    shape = (count, size, _OVERSAMPLING, size, _OVERSAMPLING)
    return np.rint(pictures.reshape(shape).mean((2, 4))).astype("uint8")
