import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from tests.rl.environments import contract

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


class TestMazes(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return environments.Mazes(
            **dict(size=4, horizon=6, batch_size=4) | settings
        )


def distances(passages, start):
    """Returns how far each cell is from the start, and the first moves."""
    size = int(len(passages) ** 0.5)
    found, queue = {start: []}, [start]
    for cell in queue:
        for move, (rows, columns) in enumerate(MOVES):
            other = cell + rows * size + columns
            if passages[cell, move] and other not in found:
                found[other] = [*found[cell], move]
                queue.append(other)
    return found


@pytest.mark.parametrize("size", [3, 6])
def test_there_is_exactly_one_way_between_any_two_cells(size):
    family = environments.Mazes(size)
    tasks = family.sample_tasks(100, "validation")
    passages = tasks["open"].numpy().reshape([100, size, size, 4])
    assert set(np.unique(passages)) == {0, 1}
    # Passages lead both ways, and none leads out.
    np.testing.assert_array_equal(passages[:, :, 1:, 3], passages[:, :, :-1, 1])
    np.testing.assert_array_equal(passages[:, 1:, :, 0], passages[:, :-1, :, 2])
    assert not passages[:, 0, :, 0].any() and not passages[:, -1, :, 2].any()
    assert not passages[:, :, 0, 3].any() and not passages[:, :, -1, 1].any()
    # A connected graph with one edge less than cells is a tree.
    assert (passages.sum((1, 2, 3)) == 2 * (size**2 - 1)).all()
    for maze in tasks["open"].numpy():
        assert len(distances(maze, 0)) == size**2
    assert len(np.unique(passages.reshape([100, -1]), axis=0)) > 50


@pytest.mark.parametrize("size", [3, 5])
def test_no_task_is_in_two_splits(size):
    family = environments.Mazes(size)
    seen = {}
    for split in contract.SPLITS:
        tasks = family.sample_tasks(5000, split)
        goals = tasks["goal"].numpy()
        assert not (goals == family.first_cell).any()
        # Any other cell can be a goal in any split.
        assert len(np.unique(goals)) == size**2 - 1
        seen[split] = set(contract.as_rows(tasks))
    train, validation, test = seen.values()
    assert not train & validation | train & test | validation & test
    # Of 192 layouts with 8 goals each, most have been seen.
    if size == 3:
        assert 1400 < len(train | validation | test) <= 192 * 8


def test_the_shortest_way_and_walls():
    family = environments.Mazes(5)
    tasks = family.sample_tasks(50)
    start = 12
    ways = [
        distances(passages, start)[goal]
        for passages, goal in zip(tasks["open"].numpy(), tasks["goal"].numpy())
    ]
    carry, time_step = family.start(tasks, tf.constant([1, 2]))
    np.testing.assert_array_equal(
        time_step.observation[:, :2], np.zeros([50, 2])
    )
    np.testing.assert_array_equal(
        time_step.observation[:, 2:], tasks["open"].numpy()[:, start]
    )
    where = np.full(50, start)
    done = np.zeros(50, bool)
    for number in range(max(map(len, ways))):
        moves = np.array(
            [way[number] if number < len(way) else 0 for way in ways]
        )
        carry, time_step = family.advance(carry, tf.constant(moves, tf.int32))
        seen = time_step.observation.numpy()
        steps = np.array([5 * row + column for row, column in MOVES])
        where = where + steps[moves]
        now = np.array([number == len(way) - 1 for way in ways])
        here = ~done & ~now
        np.testing.assert_allclose(time_step.reward[here], -0.01)
        np.testing.assert_allclose(time_step.reward[now], 0.99)
        np.testing.assert_array_equal(time_step.step_type[now], 2)
        np.testing.assert_array_equal(time_step.discount[now], 0)
        np.testing.assert_allclose(
            seen[here, :2],
            np.stack([where[here] // 5, where[here] % 5], axis=1) / 2 - 1,
        )
        np.testing.assert_array_equal(
            seen[here, 2:],
            tasks["open"].numpy()[here, where[here]],
        )
        done |= now
    assert done.all()


def test_a_wall_is_in_the_way():
    family = environments.Mazes(4)
    tasks = family.sample_tasks(50)
    carry, before = family.start(tasks, tf.constant([1, 2]))
    # A move that is not open.
    moves = np.argmin(before.observation[:, 2:], axis=1).astype("int32")
    closed = np.min(before.observation[:, 2:], axis=1) == 0
    _, after = family.advance(carry, tf.constant(moves))
    assert closed.sum() > 20
    np.testing.assert_array_equal(
        after.observation[closed], before.observation[closed]
    )


def test_mazes_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="3 cells along a side.*size=2"):
        environments.Mazes(size=2)
