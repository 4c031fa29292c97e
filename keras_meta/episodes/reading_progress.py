import time

import keras

# Seconds. What is faster needs no progress bar.
_PATIENCE = 2.0


def reading_progress(items, total, verbose=True):
    """Yields the items, and draws a progress bar once that has taken long.

    Args:
        items: Iterable.
        total: Integer, the number of items, or `None` where it is not known.
        verbose: Boolean, whether to draw at all.
    """
    if not verbose:
        yield from items
        return
    # Made before anything is read, so that it knows how long that takes.
    bar = keras.utils.Progbar(total, unit_name="read")
    start = time.monotonic()
    count, drawn = 0, False
    for count, item in enumerate(items, 1):
        yield item
        drawn = drawn or time.monotonic() - start > _PATIENCE
        # The last one is drawn below, which ends the line.
        if drawn and count != total:
            bar.update(count, finalize=False)
    if drawn:
        bar.update(count, finalize=True)
