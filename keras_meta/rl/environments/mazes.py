import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.environments.task_family import SPLITS
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import bounded

# Up, right, down, left: rows and columns.
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
# Of five cells that follow each other, this many are goals of each split.
SHARES = dict(zip(SPLITS, ((0, 1, 2), (3,), (4,))))


class Mazes(GraphTaskFamily):
    """A maze in which a player looks for a goal that shows only when reached.

    A task is a layout, drawn at random, and the cell of the goal. There is
    exactly one way between any two cells. The player starts in the middle
    and moves up, right, down or left (actions `0` to `3`), or stays where a
    wall is in the way. A step costs 0.01; the goal is worth 1, and the
    rollout ends there.

    The player sees where it is, each coordinate between -1 and 1, and which
    of the four walls around are open. Neither the goal nor the layout is
    seen, so that a first rollout is a search, and a player that has learned
    from it goes straight there in the next.

    Each layout deals its cells out to the splits as goals, so that no task
    of one split is one of another. Layouts with fewer than 5 x 5 cells are so
    few that they recur in another split, with other goals.

    Args:
        size: Integer of 3 or more, the cells along a side. Defaults to `5`.
        horizon: Integer, the steps of a rollout. `None` (the default) means
            twice the number of cells, by which any cell can be reached.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.Mazes(size=5)
    task = environment.sample_task()
    task["open"]  # [25, 4], 1 where a cell can be left by a move
    task["goal"]  # the number of a cell, row by row
    ```
    """

    def __init__(self, size=5, horizon=None, batch_size=1, seed=0):
        arguments.check_positive_integer("size", size)
        if size < 3:
            raise ValueError(
                "A maze must have 3 cells along a side or more, so that each "
                f"split has goals. Received: size={size}."
            )
        self.size = int(size)
        self.cells = self.size**2
        self.first_cell = (self.size // 2) * (self.size + 1)
        super().__init__(
            bounded([6], -1.0, 1.0, name="observation"),
            bounded([], 0, 3, tf.int32),
            task_spec={
                "open": tf.TensorSpec([self.cells, 4], tf.int32, "open"),
                "goal": tf.TensorSpec([], tf.int32, "goal"),
            },
            horizon=2 * self.cells if horizon is None else horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        by_layout, by_goal = tf.unstack(
            tf.random.experimental.stateless_split(seed)
        )
        passages = self._draw_layouts(count, by_layout)
        others = self.cells - 1
        # A number of the layout says with which cell the deal begins.
        factors = np.random.default_rng(0).integers(1, 2**20, self.cells * 4)
        number = tf.reduce_sum(
            tf.reshape(passages, [count, -1]) * factors.astype(np.int32), -1
        )
        deal = (tf.range(others)[None] + number[:, None]) % 5
        ours = tf.reduce_any(deal[..., None] == SHARES[split], axis=-1)
        drawn = tf.random.stateless_uniform([count, others], by_goal)
        goal = tf.argmax(
            tf.where(ours, drawn, -1.0), axis=-1, output_type=tf.int32
        )
        # All but the first cell were numbered.
        goal += tf.cast(goal >= self.first_cell, tf.int32)
        return {"open": passages, "goal": goal}

    def _draw_layouts(self, count, seed):
        """Grows random trees by Prim's algorithm, all at the same time."""
        ends, exits = _walls(self.size)
        weights = tf.random.stateless_uniform([count, len(ends)], seed)
        reached = tf.one_hot(
            tf.fill([count], self.first_cell), self.cells, True, False
        )
        opened = tf.zeros([count, len(ends)], tf.bool)

        def open_one(reached, opened):
            one, other = [tf.gather(reached, end, axis=1) for end in ends.T]
            edge = tf.one_hot(
                tf.argmin(tf.where(one ^ other, weights, 2.0), axis=-1),
                len(ends),
                True,
                False,
            )
            new = tf.gather(ends, tf.argmax(tf.cast(edge, tf.int32), axis=-1))
            ours, others = [
                tf.one_hot(end, self.cells, True, False)
                for end in tf.unstack(new, axis=-1)
            ]
            return reached | ours | others, opened | edge

        _, opened = tf.while_loop(
            lambda *_: True,
            open_one,
            (reached, opened),
            maximum_iterations=self.cells - 1,
        )
        # The walls at the border, numbered last, are never open.
        closed = tf.zeros([count, 1], tf.int32)
        opened = tf.concat([tf.cast(opened, tf.int32), closed], axis=-1)
        return tf.gather(opened, exits, axis=1)

    def initial_state(self, tasks, seed):
        return tf.fill(tf.shape(tasks["goal"]), self.first_cell)

    def transition(self, state, actions, tasks, seed):
        actions = tf.cast(actions, tf.int32)
        free = tf.gather(
            tf.reshape(tasks["open"], [-1, self.cells * 4]),
            state * 4 + actions,
            batch_dims=1,
        )
        steps = [row * self.size + column for row, column in MOVES]
        state = state + free * tf.gather(steps, actions)
        found = tf.equal(state, tasks["goal"])
        return state, tf.where(found, 0.99, -0.01), found

    def observe(self, state, tasks):
        where = tf.stack([state // self.size, state % self.size], axis=-1)
        where = tf.cast(where, tf.float32) * (2.0 / (self.size - 1)) - 1.0
        around = tf.gather(tasks["open"], state, batch_dims=1)
        return tf.concat([where, tf.cast(around, tf.float32)], axis=-1)


def _walls(size):
    """Returns the two cells at each inner wall, and the walls of each cell.

    The latter are numbers, `[cells, 4]`; at the border it is one number beyond
    those of the inner walls.
    """
    ends, numbers = [], {}
    for cell in range(size**2):
        for move in (1, 2):
            row = cell // size + MOVES[move][0]
            column = cell % size + MOVES[move][1]
            if row < size and column < size:
                other = row * size + column
                numbers[cell, move] = numbers[other, move ^ 2] = len(ends)
                ends.append((cell, other))
    exits = [
        [numbers.get((cell, move), len(ends)) for move in range(4)]
        for cell in range(size**2)
    ]
    return np.array(ends), np.array(exits)
