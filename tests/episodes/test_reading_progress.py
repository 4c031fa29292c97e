import types

import pytest

from keras_meta.episodes import reading_progress


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 100.0

    def ticks(self, seconds):
        """Yields numbers, each of which takes so long."""
        for number, duration in enumerate(seconds):
            self.now += duration
            yield number


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    fake = types.SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(reading_progress, "time", fake)
    return clock


def read(items, total, **settings):
    return list(reading_progress.reading_progress(items, total, **settings))


def test_yields_all_items_and_is_silent_where_they_come_fast(clock, capsys):
    assert read(clock.ticks([0.1] * 10), 10) == list(range(10))
    assert capsys.readouterr().out == ""


def test_draws_a_bar_after_two_seconds(clock, capsys):
    seen = []
    items = reading_progress.reading_progress(clock.ticks([0.9] * 5), 5)
    for item in items:
        seen.append((item, "/5" in capsys.readouterr().out))
    # What is drawn for an item is drawn when the next one is asked for: after
    # 2.7 seconds the third is the first to be drawn.
    assert seen[:4] == [(0, False), (1, False), (2, False), (3, True)]
    assert seen[4][0] == 4
    last = capsys.readouterr().out
    assert "5/5" in last and last.endswith("\n")


def test_the_number_of_items_may_be_unknown(clock, capsys):
    assert read(clock.ticks([3.0] * 4), None) == [0, 1, 2, 3]
    drawn = capsys.readouterr().out
    assert "4/Unknown" in drawn and drawn.endswith("\n")


def test_draws_nothing_where_not_asked_to(clock, capsys):
    assert read(clock.ticks([3.0] * 3), 3, verbose=False) == [0, 1, 2]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("total", [0, None, 3])
def test_there_may_be_nothing_to_read(clock, capsys, total):
    assert read(iter([]), total) == []
    assert capsys.readouterr().out == ""


def test_is_lazy_and_hands_errors_on():
    def items():
        yield 1
        raise ValueError("damaged")

    found = reading_progress.reading_progress(items(), 2)
    assert next(found) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(found)
