import collections
import hashlib
import os
import unicodedata
import warnings

import numpy as np

from keras_meta import arguments
from keras_meta import whole_files

# Raise this when the pictures change but the tables below do not.
_VERSION = 1

# The code points of each script, first and last. Where a picture occurs in
# two scripts, the earlier one of this table has it. Left out on purpose are
# playing cards, dominoes, hexagrams, faces and circled digits, which can
# hardly be told apart at 28 x 28 pixels, and old scripts and mathematical
# alphabets that are Latin and Greek over again.
_SCRIPTS = {
    "latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0xD8, 0xF6)),
    "greek": ((0x370, 0x3FF),),
    "geometric_shapes": ((0x25A0, 0x25FF),),
    "digits_and_signs": (
        (0x21, 0x40),
        (0x5B, 0x60),
        (0x7B, 0x7E),
        (0xA1, 0xBF),
        (0x2010, 0x205E),
        (0x20A0, 0x214F),
    ),
    "cyrillic": ((0x400, 0x52F), (0xA640, 0xA69F)),
    "armenian": ((0x531, 0x556), (0x561, 0x587)),
    "georgian": ((0x10A0, 0x10FA), (0x2D00, 0x2D2F)),
    "hebrew": ((0x5D0, 0x5EA),),
    "arabic": ((0x620, 0x669), (0x66E, 0x6D3), (0x6EE, 0x6FF), (0x750, 0x77F)),
    "nko": ((0x7C0, 0x7EA),),
    "lao": ((0xE80, 0xEDF),),
    "tifinagh": ((0x2D30, 0x2D7F),),
    "ogham": ((0x1680, 0x169C),),
    "canadian_syllabics": ((0x1400, 0x167F),),
    "phonetic": ((0x250, 0x2AF), (0x1D00, 0x1DBF)),
    "latin_extended": ((0xF8, 0x24F), (0x2C60, 0x2C7F), (0xA720, 0xA7FF)),
    "mathematical_operators": ((0x2200, 0x22FF),),
    "arrows": ((0x2190, 0x21FF), (0x2900, 0x2949)),
    "technical": ((0x2300, 0x23FF),),
    "box_drawing": ((0x2500, 0x257F),),
    "braille": ((0x2801, 0x283F),),
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
_OVERSAMPLING = 3

# Pixels around a drawn character, so that its edges fade out when turned.
_MARGIN = 1

# What a cache file holds.
_ARRAYS = ("images", "characters", "scripts")


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

    A stand-in for Omniglot that needs no download: some 1,760 classes of 23
    scripts. Each class is a character, drawn in the fonts that come with
    matplotlib. Its images show it in different faces, turned, slanted,
    stretched, moved and with thinner or thicker strokes at random. Of
    characters that look alike (the Latin, Greek and Cyrillic A, say) only
    one is a class.

    The first call takes about ten seconds and keeps its result where Keras
    keeps data sets: in `datasets/keras_meta` below the folder `~/.keras`, or
    below that of the environment variable `KERAS_HOME`.

    Args:
        examples: Integer, the images of each class. Defaults to `20`.
        size: Integer, the height and width of an image, at least 8. Defaults
            to `28`.
        seed: Integer, for the random changes. The classes do not depend on
            it. Defaults to `0`.
        cache: Boolean, whether to keep the result in a file, and to read it
            from there. Defaults to `True`.

    Returns:
        A `Glyphs` tuple of `images`, `labels`, `characters` and `scripts`. The
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
    arguments.check_integer("seed", seed)
    examples, size, seed = int(examples), int(size), int(seed)
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
        (examples, size, seed),
        # The fonts, what draws them, and what is a letter.
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
    """Returns the arrays of a cache file, or `None` where there are none."""
    try:
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            return tuple(arrays[name] for name in _ARRAYS)
    except Exception:
        # A damaged file fails in many ways, and all it costs is time.
        return None


def _write(path, arrays):
    """Writes a cache file, or warns where that cannot be done."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with whole_files.writing(path) as file:
            np.savez_compressed(file, **dict(zip(_ARRAYS, arrays)))
    except OSError as error:
        warnings.warn(
            f"The glyphs could not be kept in {path} and will be drawn again "
            f"the next time: {error}. Set KERAS_HOME to a folder that can be "
            "written, or pass `cache=False`.",
            stacklevel=3,
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
    # What is smaller than most letters is a dot or a tick, enlarged.
    smallest = 0.4 * size * _OVERSAMPLING
    classes, pictures = [], []
    for script, character in _candidates():
        picture = next(_draw_faces(character, fonts), None)
        if picture is not None and max(picture.size) >= smallest:
            classes.append((script, character))
            pictures.append(picture)
    pictures = _draw_standard(pictures, size)
    alike = _look_alike(pictures)
    # Hairlines would fade.
    visible = pictures.max(axis=(1, 2)) > 230
    chosen = []
    for index in np.flatnonzero(visible):
        if not alike[index, chosen].any():
            chosen.append(index)
    return sorted(classes[index] for index in chosen)


def _candidates():
    """Yields pairs of a script and a character."""
    for script, ranges in _SCRIPTS.items():
        for first, last in ranges:
            for character in map(chr, range(first, last + 1)):
                if _stands_alone(character):
                    yield script, character


def _stands_alone(character):
    """Tells whether a character is a letter, digit or sign of its own.

    Combining marks, blanks and superscripts are not, nor are letters that
    Unicode takes apart into a letter and an accent.
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
    from PIL import ImageOps

    for font, code_points in fonts:
        if ord(character) not in code_points:
            continue
        left, top, right, bottom = font.getbbox(character)
        frame = Image.new("L", (max(1, right - left), max(1, bottom - top)))
        pen = ImageDraw.Draw(frame)
        pen.text((-left, -top), character, fill=255, font=font)
        edges = frame.getbbox()
        if edges:
            yield ImageOps.expand(frame.crop(edges), _MARGIN)


def _sides(pictures):
    """Returns the widths and heights without the margin, `[pictures, 2]`."""
    sides = np.array([picture.size for picture in pictures])
    return sides - 2 * _MARGIN


def _draw_standard(pictures, size):
    """Returns the pictures of characters as they are compared.

    They are stretched a little towards a square: letters that differ only
    in their proportions look alike.
    """
    sides = _sides(pictures)
    longest = sides.max(axis=1, keepdims=True)
    spans = np.minimum(1.6 * sides, longest) / longest
    scales = 0.78 * size * _OVERSAMPLING * spans / sides
    matrices = np.eye(2) * scales[:, None]
    return _shrink(_place(pictures, matrices, np.zeros_like(sides), size))


def _look_alike(pictures):
    """Returns a matrix that tells which pictures look alike.

    They do where the ink of each lies on the ink of the other, but for 12
    pixels: a pixel counts from a distance of 2, and twice from 3 on. Most
    pairs below 12 are one shape in two scripts, weights or proportions, with
    some that are hard to tell apart, such as S and 5. From 13 on are D and O,
    C and G, or Arabic letters that differ in their dots.
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
    order = generator.permutation(len(faces))[np.arange(examples) % len(faces)]
    numbers = generator.uniform(-1, 1, (examples, 7))
    sides = _sides(faces)[order]
    matrices, shifts = _random_changes(numbers[:, :6], sides, size)
    pictures = _place([faces[face] for face in order], matrices, shifts, size)
    return _shrink(_change_strokes(pictures, numbers[:, 6]))[..., None]


def _random_changes(numbers, sides, size):
    """Turns numbers from -1 to 1 into changes of place and shape.

    Args:
        numbers: Array `[examples, 6]`.
        sides: Array `[examples, 2]`, the sizes of the pictures.
        size: Integer, the size of an image.

    Returns:
        A tuple of arrays: what each picture is multiplied with, `[examples,
        2, 2]`, and how far its middle is from that of the frame, `[examples,
        2]`.
    """
    turn, slant, stretch, span, right, down = numbers.T
    angle, width = np.deg2rad(12) * turn, np.exp(0.15 * stretch)
    zero = np.zeros_like(angle)
    turning = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    shaping = [[width, 0.2 * slant / width], [zero, 1 / width]]
    matrices = np.einsum("ijn,jkn->nik", np.array(turning), np.array(shaping))
    # However it is turned, a character fills two thirds to most of the frame.
    side = size * _OVERSAMPLING
    spans = np.einsum("nij,nj->ni", np.abs(matrices), sides)
    scale = (0.75 + 0.1 * span)[:, None] * side / spans.max(1, keepdims=True)
    # A pixel is left for thicker strokes.
    room = (side - scale * spans) / 2 - _OVERSAMPLING
    shifts = np.stack([right, down], 1) * np.clip(room, 0, 0.07 * side)
    return scale[..., None] * matrices, shifts


def _place(pictures, matrices, shifts, size):
    """Draws each picture in the middle of a larger frame.

    Args:
        pictures: List of Pillow images.
        matrices: Array `[pictures, 2, 2]`, what they are multiplied with.
        shifts: Array `[pictures, 2]`, how far their middles are then moved.
        size: Integer, the size of the frame before oversampling.

    Returns:
        Array `[pictures, size * oversampling, size * oversampling]`, uint8.
    """
    from PIL import Image

    side = size * _OVERSAMPLING
    middles = _sides(pictures) / 2 + _MARGIN
    # Pillow asks where in the picture a point of the frame comes from.
    inverses = np.linalg.inv(matrices)
    origins = middles - np.einsum("nij,nj->ni", inverses, side / 2 + shifts)
    coefficients = np.concatenate([inverses, origins[..., None]], axis=2)
    frames = [
        picture.transform(
            (side, side), Image.Transform.AFFINE, row, Image.Resampling.BILINEAR
        )
        for picture, row in zip(pictures, coefficients.reshape(-1, 6).tolist())
    ]
    return np.stack([np.asarray(frame) for frame in frames])


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
        # Where more of it could not be undone, strokes would break or gaps
        # would close.
        ink, left = _ink(before), _ink(undo(undo(change(after))))
        kept = np.abs(left - ink) < 0.1 * ink
        pictures[np.flatnonzero(chosen)[kept]] = after[kept]
    return pictures


def _thicken(pictures):
    """Spreads the ink of `[count, height, width]` by a pixel all around."""
    rows = pictures.copy()
    np.maximum(rows[:, 1:], pictures[:, :-1], out=rows[:, 1:])
    np.maximum(rows[:, :-1], pictures[:, 1:], out=rows[:, :-1])
    spread = rows.copy()
    np.maximum(spread[:, :, 1:], rows[:, :, :-1], out=spread[:, :, 1:])
    np.maximum(spread[:, :, :-1], rows[:, :, 1:], out=spread[:, :, :-1])
    return spread


def _thin(pictures):
    return 255 - _thicken(255 - pictures)


def _ink(pictures):
    return pictures.sum((1, 2), "int32")


def _shrink(pictures):
    """Averages away the oversampling."""
    count, side, _ = pictures.shape
    size = side // _OVERSAMPLING
    rows = pictures.reshape(count, size, _OVERSAMPLING, side).sum(2, "uint16")
    totals = rows.reshape(count, size, size, _OVERSAMPLING).sum(3, "uint16")
    return (totals // _OVERSAMPLING**2).astype("uint8")
