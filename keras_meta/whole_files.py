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
    with replacing(path) as temporary:
        with open(temporary, "xb") as file:
            yield file


@contextlib.contextmanager
def replacing(path, ending=""):
    """Gives the path of a file to write, which is then put at `path`.

    For what writes files by their path only; see `writing()`.

    Args:
        path: String, where the file shall be.
        ending: String, how the name of the file to write must end. Defaults
            to `""`.

    Example:

    ```python
    with whole_files.replacing("model.keras", ".keras") as path:
        keras.saving.save_model(model, path)
    ```
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp{ending}"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
