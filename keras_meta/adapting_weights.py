"""Which weights of a network adapt in the inner loop; all others are shared.

It is a predicate on layers, and not an algorithm of its own: ANIL is the head
alone, BOIL everything but the head.
"""

import keras

CHOICES = ("all", "head", "body")


def mask(network, adapts):
    """Returns which of `network.trainable_variables` adapt.

    Args:
        network: A built `keras.Model`.
        adapts: `"all"`; `"head"`, the last layer that has trainable weights;
            `"body"`, all layers but that; or a function that takes a layer
            and returns whether it adapts. It is asked for the layers of
            nested models, too, and for all other layers as a whole.

    Returns:
        A list of booleans.

    Raises:
        ValueError: Where `adapts` is none of these, or no weight adapts.
    """
    if not callable(adapts) and adapts not in CHOICES:
        raise ValueError(
            f"`adapts` must be one of {', '.join(map(repr, CHOICES))}, or a "
            "function that takes a layer and returns whether it adapts. "
            f"Received: adapts={adapts!r}."
        )
    owners = {}
    for layer in _layers(network):
        for variable in layer.trainable_variables:
            owners.setdefault(id(variable), layer)
    variables = network.trainable_variables
    owners = [owners.get(id(variable), network) for variable in variables]
    if callable(adapts):
        answers = {id(layer): bool(adapts(layer)) for layer in owners}
    else:
        head = id(_head(network, owners)) if adapts != "all" else None
        answers = {
            id(layer): adapts == "all"
            or (id(layer) == head) == (adapts == "head")
            for layer in owners
        }
    chosen = [answers[id(layer)] for layer in owners]
    if not any(chosen):
        names = dict.fromkeys(layer.name for layer in owners)
        raise ValueError(
            "`adapts` must choose at least one layer with trainable weights. "
            f"Received: adapts={adapts!r}, which chooses none of the layers "
            f"{', '.join(names)}. Choose one of them, or make it trainable."
        )
    return chosen


def _layers(network):
    """Yields all layers in their order, those of inner models before these."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        yield layer


def _head(network, owners):
    outputs = getattr(network, "outputs", None)
    if outputs is not None and len(outputs) > 1:
        raise ValueError(
            "`adapts='head'` and `adapts='body'` need a network of one "
            f"output, whose last layer is the head. Received: {network!r} "
            f"with {len(outputs)} outputs. Give a function of layers instead."
        )
    return owners[-1]
