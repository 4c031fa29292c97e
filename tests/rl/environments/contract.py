"""What every task family must do, whatever it is."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.drivers import dynamic_step_driver
from tf_agents.policies import random_tf_policy

from keras_meta.rl import rollouts

FIRST, MID, LAST = 0, 1, 2
SPLITS = ("train", "validation", "test")


def assert_same(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def as_rows(tasks):
    """Returns tasks as a list of bytes."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(tasks)]
    return [as_row(row) for row in zip(*leaves)]


def as_row(task):
    leaves = tf.nest.flatten(task)
    return b"".join(np.asarray(leaf).tobytes() for leaf in leaves)


class TaskFamilyContract:
    """Subclass it as `TestMyFamily` and write `make_family()`."""

    # What a family says of its splits. Directions are only two.
    splits_are_apart = True
    # The discount of a last step at the horizon.
    last_discount = 1.0

    def make_family(self, **settings):
        """Returns a family of 4 rows and a horizon of 6 or less."""
        raise NotImplementedError

    @pytest.fixture
    def family(self):
        return self.make_family()

    def actions(self, family, rows, seed=0):
        """Returns random actions `[rows, ...]`."""
        spec = family.action_spec()
        drawn = np.random.default_rng(seed).uniform(size=[rows, *spec.shape])
        choices = spec.maximum - spec.minimum + spec.dtype.is_integer
        return tf.cast(spec.minimum + drawn * choices, spec.dtype)

    def run(self, family, tasks, steps, seed=(1, 2)):
        """Returns time steps of random actions, and the actions."""
        rows = tf.nest.flatten(tasks)[0].shape[0]
        actions = [
            self.actions(family, rows, number) for number in range(steps)
        ]
        carry, time_step = family.start(tasks, tf.constant(seed))
        time_steps = [time_step]
        for action in actions:
            carry, time_step = family.advance(carry, action)
            time_steps.append(time_step)
        return time_steps, actions

    def test_what_it_gives_fits_what_it_says(self, family):
        tasks = family.sample_tasks(5)
        spec = family.time_step_spec()
        for time_step in self.run(family, tasks, 2)[0]:
            tf.nest.map_structure(
                lambda spec, leaf: (
                    np.testing.assert_equal(leaf.dtype, spec.dtype),
                    np.testing.assert_equal(
                        tuple(leaf.shape), (5, *spec.shape)
                    ),
                ),
                spec,
                time_step,
            )
            for leaf, bounds in zip(
                tf.nest.flatten(time_step.observation),
                tf.nest.flatten(spec.observation),
            ):
                if hasattr(bounds, "minimum"):
                    assert np.all(leaf >= bounds.minimum)
                    assert np.all(leaf <= bounds.maximum)
        tf.nest.map_structure(
            lambda spec, leaf: np.testing.assert_equal(
                (leaf.dtype, tuple(leaf.shape)), (spec.dtype, tuple(spec.shape))
            ),
            family.task_spec,
            family.sample_task(),
        )

    def test_it_restarts_after_the_last_step_and_stops_at_the_horizon(
        self, family
    ):
        tasks = family.sample_tasks(5)
        time_steps, _ = self.run(family, tasks, 2 * family.horizon + 3)
        types = np.array([step.step_type for step in time_steps])
        rewards = np.array([step.reward for step in time_steps])
        discounts = np.array([step.discount for step in time_steps])
        first = types == FIRST
        assert first[0].all()
        np.testing.assert_array_equal(first[1:], types[:-1] == LAST)
        assert (rewards[first] == 0).all()
        assert (discounts[types != LAST] == 1).all()
        for row in types.T:
            begins, ends = np.flatnonzero(row == 0), np.flatnonzero(row == 2)
            lengths = ends - begins[: len(ends)]
            assert len(ends) >= 2
            assert lengths.max() <= family.horizon
        at_horizon = (types == LAST) & (
            np.arange(len(types))[:, None] == family.horizon
        )
        assert (discounts[at_horizon] == self.last_discount).all()

    def test_one_seed_gives_the_same_rollouts(self):
        tasks = self.make_family().sample_tasks(5)
        one, other = [
            self.run(self.make_family(), tasks, 8)[0] for _ in range(2)
        ]
        assert_same(one, other)

    def test_the_environment_and_the_functions_are_one(self):
        environment, family = self.make_family(), self.make_family()
        assert environment.batch_size == 4
        tasks = family.sample_tasks(4, seed=3)
        environment.set_tasks(tasks)
        # The seed that the first `reset()` draws.
        seed = tf.random.Generator.from_seed(family.seed).uniform_full_int(
            [2], tf.int32
        )
        carry, expected = family.start(tasks, seed)
        assert_same(environment.reset(), expected)
        assert_same(environment.current_time_step(), expected)
        for number in range(family.horizon + 2):
            action = self.actions(family, 4, number)
            carry, expected = family.advance(carry, action)
            assert_same(environment.step(action), expected)
        assert_same(environment.current_time_step(), expected)

    def test_rows_can_be_restarted_at_once(self, family):
        tasks = family.sample_tasks(5)
        carry, _ = family.start(tasks, tf.constant([1, 2]))
        carry, before = family.advance(carry, self.actions(family, 5))
        rows = tf.constant([True, False, True, False, False])
        carry, after = family.restart(carry, before, rows)
        np.testing.assert_array_equal(
            after.step_type, np.where(rows, FIRST, before.step_type)
        )
        assert_same(after.reward, before.reward)
        for one, other in zip(
            tf.nest.flatten(after.observation),
            tf.nest.flatten(before.observation),
        ):
            np.testing.assert_array_equal(one[~rows], other[~rows])
        # For these, the horizon is a step later.
        for _ in range(family.horizon - 1):
            carry, after = family.advance(carry, self.actions(family, 5))
            last = (after.step_type == LAST) & rows
            assert np.all(after.discount[last] == 0)

    def test_splits_are_reproducible_and_apart(self, family):
        drawn = {split: family.sample_tasks(100, split) for split in SPLITS}
        again = self.make_family()
        for split, tasks in drawn.items():
            assert_same(tasks, again.sample_tasks(100, split))
            other = again.sample_tasks(100, split, seed=1)
            assert as_rows(tasks) != as_rows(other)
        train, validation, test = map(set, map(as_rows, drawn.values()))
        if self.splits_are_apart:
            assert not train & validation | train & test | validation & test

    def test_sample_task_draws_another_one_with_each_call(self, family):
        tasks = [family.sample_task() for _ in range(20)]
        again = self.make_family()
        assert_same(tasks[0], again.sample_task())
        assert len({as_row(task) for task in tasks}) > 1

    def test_data_set_of_tasks_is_the_same_in_each_epoch(self, family):
        data = family.tasks(3, batches=2)
        epochs = [list(data), list(data), list(family.tasks(3).take(2))]
        for epoch in epochs:
            assert_same(epoch, epochs[0])
        one, other = epochs[0]
        assert as_rows(one) != as_rows(other)
        anew = list(family.tasks(3, batches=2, seed=1))
        assert list(map(as_rows, anew)) != list(map(as_rows, epochs[0]))
        tf.nest.map_structure(
            lambda spec, leaf: np.testing.assert_equal(
                tuple(leaf.shape), (3, *spec.shape)
            ),
            family.task_spec,
            one,
        )

    def test_tasks_that_do_not_fit_are_refused(self, family):
        wrong = tf.nest.map_structure(
            lambda leaf: tf.concat([leaf, leaf], axis=-1)[None],
            family.sample_tasks(4),
        )
        for tasks in (
            wrong,
            family.sample_tasks(3),
            {"something": 1.0},
        ):
            with pytest.raises(ValueError, match="`tasks` must be one task"):
                family.set_tasks(tasks)
        # One for all is enough.
        family.set_tasks(family.sample_task())

    def test_a_driver_of_tf_agents_runs_it(self, family):
        seen = []
        policy = random_tf_policy.RandomTFPolicy(
            family.time_step_spec(), family.action_spec()
        )
        driver = dynamic_step_driver.DynamicStepDriver(
            family,
            policy,
            observers=[lambda step: seen.append(step) or ()],
            num_steps=12,
        )
        time_step, _ = driver.run(maximum_iterations=10)
        assert seen
        assert tuple(time_step.reward.shape) == (4,)

    def test_rollouts_in_a_graph(self, family):
        policy = random_tf_policy.RandomTFPolicy(
            family.time_step_spec(), family.action_spec()
        )

        @tf.function(autograph=False)
        def collect(tasks):
            return rollouts.collect(family, policy, tasks)[0]

        experience = collect(family.sample_tasks(5))
        assert tuple(experience.reward.shape) == (5, family.horizon)
        assert np.all(experience.step_type[:, 0] == FIRST)
        # Whatever rows there are, known or not.
        anew = tf.function(
            lambda tasks: rollouts.first_returns(
                rollouts.collect(family, policy, tasks)[0]
            ),
            autograph=False,
            input_signature=[
                tf.nest.map_structure(
                    lambda spec: tf.TensorSpec([None, *spec.shape], spec.dtype),
                    family.task_spec,
                )
            ],
        )
        assert tuple(anew(family.sample_tasks(3)).shape) == (3,)
