import numpy as np
import pytest

from keras_meta import whole_files


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "numbers.npy"
    with whole_files.writing(str(path)) as file:
        np.save(file, np.arange(3))
    with pytest.raises(ZeroDivisionError):
        with whole_files.writing(str(path)) as file:
            file.write(b"half")
            1 / 0
    np.testing.assert_array_equal(np.load(path), np.arange(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_is_replaced_once_what_was_written_is_whole(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        with whole_files.replacing(str(path), ".txt") as temporary:
            with open(temporary, "w") as file:
                file.write("half")
            1 / 0
    assert path.read_text() == "old"
    with whole_files.replacing(str(path), ".txt") as temporary:
        assert temporary.endswith(".txt")
        with open(temporary, "w") as file:
            file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
