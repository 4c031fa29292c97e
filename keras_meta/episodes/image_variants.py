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


def check_images(spec, quarter_turns):
    """Raises a `ValueError` where examples are no images to turn.

    Args:
        spec: The shapes and dtypes of an example.
        quarter_turns: Boolean, whether they must be square.
    """
    if tf.nest.is_nested(spec) or spec.shape.rank not in (2, 3):
        shapes = tf.nest.map_structure(lambda leaf: str(leaf.shape), spec)
        raise ValueError(
            "Only images can be turned and mirrored, `[height, width]` with or "
            f"without channels. Received: examples of shape {shapes}."
        )
    if quarter_turns and spec.shape[0] != spec.shape[1]:
        raise ValueError(
            "Only square images can be turned by quarters. Received: examples "
            f"of shape {spec.shape}. Resize them, or leave `quarter_turns` out."
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
