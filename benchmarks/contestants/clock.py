import time


def durations(step, steps, blocks, wait=lambda result: None):
    """Returns the seconds of each block of steps.

    Args:
        step: Function of no arguments.
        steps: Integer, how often it runs in a block.
        blocks: Integer, the number of blocks.
        wait: Function of what the last step of a block returned, which waits
            until that is there.
    """
    found = []
    for _ in range(blocks):
        started = time.perf_counter()
        for _ in range(steps):
            result = step()
        wait(result)
        found.append(time.perf_counter() - started)
    return found
