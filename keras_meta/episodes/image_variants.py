"""Turned and mirrored images, as classes of their own."""

import tensorflow as tf

# Whether each of the variants is transposed, then its rows and its columns
# put in reverse: four quarter turns to the left, and those of the mirror
# image.
_FLIPS = (
    (False, False, False),
    (True, True, False),
    (False, True, True),
    (True, False, True),
    (False, False, True),
    (True, False, False),
    (False, True, False),
    (True, True, True),
)


def choose(quarter_turns, mirrors):
    """Returns the numbers of the variants to use, the image itself first."""
    turns = range(4) if quarter_turns else range(1)
    return [*turns, *(4 + turn for turn in turns)] if mirrors else list(turns)


def check_images(x, quarter_turns):
    """Raises a `ValueError` where `x` is no tensor of images to turn."""
    nested = tf.nest.is_nested(x)
    if nested or x.shape.rank not in (3, 4):
        shapes = tf.nest.map_structure(lambda leaf: str(leaf.shape), x)
        raise ValueError(
            "Only images can be turned and mirrored, `[examples, height, "
            f"width]` with or without channels. Received: x of shape {shapes}."
        )
    if quarter_turns and x.shape[1] != x.shape[2]:
        raise ValueError(
            "Only square images can be turned by quarters. Received: x of "
            f"shape {x.shape}. Resize them, or leave `quarter_turns` out."
        )


def turn(images, variants, used):
    """Turns and mirrors each image.

    Args:
        images: Tensor `[tasks, examples, height, width, ...]`.
        variants: Integer tensor `[tasks, examples]`, places in `used`.
        used: List of the numbers of variants.

    Returns:
        A tensor of the shape of `images`.
    """
    flips = tf.gather(
        tf.constant([_FLIPS[number] for number in used]), variants
    )
    rank = images.shape.rank

    def where(flag, flipped, images):
        shape = tf.concat([tf.shape(flag), [1] * (rank - 2)], axis=0)
        return tf.where(tf.reshape(flag, shape), flipped, images)

    axes = [0, 1, 3, 2, *range(4, rank)]
    if any(_FLIPS[number][0] for number in used):
        transposed = tf.transpose(images, axes)
        images = where(flips[..., 0], transposed, images)
    if any(_FLIPS[number][1] for number in used):
        images = where(flips[..., 1], tf.reverse(images, [2]), images)
    return where(flips[..., 2], tf.reverse(images, [3]), images)
