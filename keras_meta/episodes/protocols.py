"""What a result was measured on, in words."""

from keras_meta.episodes import meta_batches

_COUNTED = {
    "ways": ("way", "ways"),
    "shots": ("shot", "shots"),
    "queries": ("query a class", "queries a class"),
    # Of a regression, which has no classes.
    "points": ("support point", "support points"),
    "query points": ("query", "queries"),
}
_WORDS = {
    "source": "{}",
    "split": "{}",
    "within": "within a {}",
    "class_odds": "classes by their {}",
    "mixed": "mixed of {}",
}


def protocol_of(episodes):
    """Returns what is known of a data set of episodes, as a string."""
    protocol = details_of(episodes)
    return in_words(protocol) if protocol else "episodes of another source"


def details_of(episodes):
    """Returns what is known of a data set of episodes, as a dictionary."""
    origin, changed = meta_batches.origin_of(episodes)
    if origin is None:
        return {}
    protocol = {**origin.recipe.protocol}
    first, shard = origin.first_episode, origin.shard
    if first:
        protocol["first episode"] = first
    if shard != (0, 1):
        protocol["shard"] = f"{shard[0]} of {shard[1]}"
    if changed:
        protocol["changed"] = "by the pipeline"
    return protocol


def in_words(protocol):
    """Returns the protocol of a `meta_batches.Recipe` as a string."""
    return ", ".join(_in_words(name, value) for name, value in protocol.items())


def _in_words(name, value):
    if name in _COUNTED:
        one, more = _COUNTED[name]
        return f"{value} {one if value == 1 else more}"
    return _WORDS.get(name, f"{name} {{}}").format(value)
