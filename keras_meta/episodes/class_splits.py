import numpy as np

from keras_meta import arguments


def class_split(y, fractions=(0.8, 0.2), groups=None, seed=0):
    """Splits classes into parts that share none, such as train and test.

    Args:
        y: Integer array, the labels of the examples (or the classes).
        fractions: Sequence of floats above 0, the share of each part; they
            are divided by their sum. Defaults to `(0.8, 0.2)`.
        groups: Optional sequence, the group of each class in the order of
            its number (its script or alphabet, say). Whole groups then go to
            one part, so that no part holds a group of another, and shares
            are met to less than the largest group.
        seed: Integer. Defaults to `0`.

    Returns:
        A list of sorted integer arrays, the classes of each part, for the
        argument `classes` of `keras_meta.episodes.from_arrays()`.

    Raises:
        ValueError: Where a part would be left without a class.

    Example:

    ```python
    y = np.repeat(np.arange(50), 20)
    train, test = keras_meta.episodes.class_split(y, fractions=(0.8, 0.2))
    ```
    """
    arguments.check_integer("seed", seed)
    if not np.ndim(fractions) or not len(fractions):
        raise ValueError(
            "`fractions` must hold the share of each part. Received: "
            f"fractions={fractions!r}. Use for example (0.8, 0.2)."
        )
    for fraction in fractions:
        arguments.check_positive_number("fractions", fraction)
    classes = np.unique(np.asarray(y))
    if groups is None:
        groups = classes
    groups = np.asarray(groups)
    if len(groups) != len(classes):
        raise ValueError(
            "`groups` must name the group of each class. Received: "
            f"{len(groups)} groups for {len(classes)} classes."
        )
    shares = np.asarray(fractions, "float64")
    shares = shares / shares.sum()
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < len(shares):
        raise ValueError(
            "There must be at least one class (or group) for each part. "
            f"Received: fractions={tuple(fractions)} for {len(names)} "
            "classes or groups."
        )
    # The largest groups first, each to the part that lacks most, meets the
    # shares well; among groups of one size, chance decides.
    # NumPy takes no negative seeds.
    generator = np.random.default_rng(seed if seed >= 0 else [-int(seed), 1])
    shuffled = generator.permutation(len(names))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    parts = [[] for _ in shares]
    filled = np.zeros(len(shares))
    for position, group in enumerate(order):
        lacking = shares * len(classes) - filled
        empty = [index for index, part in enumerate(parts) if not part]
        if len(order) - position <= len(empty):
            # The groups that are left are just enough to give each a one.
            lacking[[bool(part) for part in parts]] = -np.inf
        target = int(np.argmax(lacking))
        parts[target].append(names[group])
        filled[target] += sizes[group]
    return [classes[np.isin(groups, part)] for part in parts]
