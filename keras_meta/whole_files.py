import contextlib
import os
import uuid


@contextlib.contextmanager
def writing(path):
    """Gives a binary file that gets the name `path` once it is whole.

    Where writing fails, what was at `path` stays as it was and nothing is
    left behind; and two processes that write at once do not meet.

    Args:
        path: String, the file to write.

    Example:

    ```python
    with whole_files.writing("numbers.npy") as file:
        np.save(file, np.arange(3))
    ```
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
