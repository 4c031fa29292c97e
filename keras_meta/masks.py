"""Lists of which only some items are meant, as a list of booleans tells."""


def chosen(items, mask):
    """Returns the items that are chosen.

    Args:
        items: List.
        mask: List of as many booleans.
    """
    return [item for item, is_chosen in zip(items, mask) if is_chosen]


def with_chosen(items, mask, replacements):
    """Returns `items`, the chosen ones replaced.

    Args:
        items: List.
        mask: List of as many booleans.
        replacements: Iterable, one for each that is chosen.
    """
    replacements = iter(replacements)
    return [
        next(replacements) if is_chosen else item
        for item, is_chosen in zip(items, mask)
    ]
