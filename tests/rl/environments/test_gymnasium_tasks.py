import gc
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import random_tf_policy

import keras_meta
from keras_meta.rl import environments
from keras_meta.rl import rollouts
from tests.rl.environments import contract

gymnasium_environments = pytest.importorskip(
    "tests.gymnasium_environments", reason="gymnasium is not installed"
)

ROOT = pathlib.Path(keras_meta.__file__).resolve().parents[1]
NUMBERS = {"train": np.arange(1.0, 6.0), "test": [0.5]}


def draw_goals(count, seed, split):
    return tf.random.stateless_uniform([count], seed, -1.0, 1.0)


def processes(family):
    return [worker.process for worker in family._pool._workers]


def workers():
    """Returns how many workers of this process there are."""
    found = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
    )
    return sum("runpy" in line for line in found.stdout.splitlines())


@pytest.fixture
def no_more_workers():
    """Fails where a test leaves workers running."""
    before = workers()
    yield
    assert workers() == before


def make_family(**settings):
    return environments.GymnasiumTasks(
        gymnasium_environments.line,
        draw_goals,
        **dict(horizon=6, workers=1, batch_size=4) | settings,
    )


@pytest.fixture(scope="module")
def shared():
    with make_family() as family:
        yield family


class TestGymnasiumTasks(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return make_family(**settings)

    # Processes take longer to make than anything else here, and nothing in the
    # contract changes a family but `sample_task()`.
    @pytest.fixture
    def family(self, shared):
        return shared

    def test_sample_task_draws_another_one_with_each_call(self):
        super().test_sample_task_draws_another_one_with_each_call(
            self.make_family()
        )


def test_trials_in_it_restart_rows_at_once():
    with environments.GymnasiumTasks(
        gymnasium_environments.line, draw_goals, horizon=2, workers=1
    ) as family:
        trials = environments.Trials(family, rollouts=2, batch_size=3)
        types = [trials.reset().step_type.numpy()]
        ended = []
        for _ in range(5):
            # Out of reach of a goal, so that each rollout takes two steps.
            time_step = trials.step(tf.zeros([3, 1]))
            types.append(time_step.step_type.numpy())
            ended.append(time_step.observation[:, -1].numpy())
        np.testing.assert_array_equal(
            np.transpose(types), [[0, 1, 1, 1, 2, 0]] * 3
        )
        np.testing.assert_array_equal(
            np.transpose(ended), [[0, 1, 0, 1, 0]] * 3
        )


def test_dynamics_clipping_and_ends():
    with environments.GymnasiumTasks(
        gymnasium_environments.line, draw_goals, horizon=50, workers=2
    ) as family:
        goals = tf.constant([9.0, -9.0, 0.0])
        carry, time_step = family.start(goals, tf.constant([1, 2]))
        where = time_step.observation.numpy()[:, 0]
        assert len(set(where)) == 3
        carry, time_step = family.advance(
            carry, tf.constant([[7.0], [-7.0], [0.25]])
        )
        where = where + [0.5, -0.5, 0.25]
        observation = time_step.observation.numpy()
        np.testing.assert_allclose(observation[:, 0], where, rtol=1e-6)
        np.testing.assert_array_equal(observation[:, 1], goals)
        np.testing.assert_allclose(
            time_step.reward, -np.abs(where - goals), rtol=1e-6
        )
        # On to the goal of the last row, which is the end of its rollout.
        while time_step.step_type[2] == 1:
            move = np.clip(-time_step.observation[2, 0], -0.5, 0.5)
            carry, time_step = family.advance(
                carry, tf.constant([[0.0], [0.0], [move]], tf.float32)
            )
        np.testing.assert_array_equal(time_step.step_type, [1, 1, 2])
        np.testing.assert_array_equal(time_step.discount, [1, 1, 0])
        carry, time_step = family.advance(carry, tf.zeros([3, 1]))
        np.testing.assert_array_equal(time_step.step_type, [1, 1, 0])
        np.testing.assert_array_equal(time_step.discount, [1, 1, 1])
        assert time_step.reward[2] == 0


def test_rollouts_do_not_depend_on_the_workers_nor_on_what_was_before():
    goals = tf.linspace(-2.0, 2.0, 5)
    run = contract.TaskFamilyContract().run
    with (
        environments.GymnasiumTasks(
            gymnasium_environments.line, draw_goals, horizon=3, workers=1
        ) as one,
        environments.GymnasiumTasks(
            gymnasium_environments.line, draw_goals, horizon=3, workers=3
        ) as three,
    ):
        expected = run(one, goals, 8)
        assert len(processes(one)) == 1
        # More rows, fewer rows, other tasks.
        run(three, tf.linspace(-1.0, 1.0, 7), 2)
        run(three, goals[:2], 2)
        contract.assert_same(run(three, goals, 8), expected)
        assert len(processes(three)) == 3
        other = run(one, goals, 8, seed=(1, 3))
        assert np.any(other[0][0].observation != expected[0][0].observation)


def test_parts_of_observations_and_discrete_actions():
    task = {"color": 200, "heat": [0.25, 0.5]}
    other = {"color": 201, "heat": [0.5, 0.75]}
    with environments.GymnasiumTasks(
        gymnasium_environments.Lamps,
        {"train": [task], "test": [other]},
        horizon=9,
        workers=1,
    ) as family:
        assert family.task_spec["color"].dtype == tf.int32
        spec = family.observation_spec()
        assert spec["picture"].dtype == tf.uint8
        assert spec["steps"].dtype == spec["inner"]["hours"].dtype == tf.int32
        assert (spec["steps"].minimum, spec["steps"].maximum) == (-1, 98)
        assert spec["inner"]["heat"].dtype == tf.float32
        assert (family.action_spec().minimum, family.action_spec().maximum) == (
            2,
            4,
        )
        first = family.reset().observation
        assert np.all(first["picture"] == 200)
        np.testing.assert_allclose(first["inner"]["heat"], [[0.25]])
        steps = [family.step([action]) for action in (3, 2, 4, 4)]
        np.testing.assert_array_equal(
            steps[1].observation["inner"]["lamps"], [[1, 1, 0]]
        )
        np.testing.assert_array_equal(steps[1].observation["steps"], [2])
        # The environment has truncated the rollout: nothing is over.
        assert steps[2].step_type == 2 and steps[2].discount == 1
        assert steps[3].step_type == 0 and steps[3].reward == 0


def test_environments_are_kept_where_they_can_be():
    def make(goal):
        environment = gymnasium_environments.Line(goal)
        environment.observe = lambda: np.array([goal, environment.resets])
        return environment

    def change(environment, goal):
        environment.goal = goal

    for set_task, expected in (
        (None, [[1, 1], [2, 1], [1, 2], [3, 1]]),
        (change, [[1, 1], [2, 1], [1, 2], [2, 2]]),
    ):
        with environments.GymnasiumTasks(
            make, NUMBERS, horizon=3, set_task=set_task, workers=1
        ) as family:
            start = tf.constant([1, 2])
            one = family.start(tf.constant([1.0, 2.0]), start)[
                1
            ].observation.numpy()
            two = family.start(tf.constant([1.0, 3.0]), start)[
                1
            ].observation.numpy()
            np.testing.assert_array_equal(np.concatenate([one, two]), expected)


def test_lists_are_drawn_without_repetition_and_stay_apart():
    lists = {"train": np.arange(10.0), "test": [10, 11], "validation": [12]}
    draw = environments.task_lists.TaskLists(lists)
    drawn = draw(20, tf.constant([1, 2]), "train").numpy()
    np.testing.assert_array_equal(np.sort(drawn[:10]), np.arange(10))
    np.testing.assert_array_equal(np.sort(drawn[10:]), np.arange(10))
    assert (drawn[:10] != drawn[10:]).any()
    assert set(draw(5, tf.constant([1, 2]), "test").numpy()) == {10, 11}
    assert drawn.dtype == np.float32


@pytest.mark.parametrize(
    "lists, message",
    [
        ({"train": [1, 2], "test": [3, 2]}, "the task 2 in both 'train' and"),
        (
            {"train": [{"a": 0.1, "b": [1]}], "test": [{"a": 0.1, "b": [1]}]},
            "must not overlap. Received: the task {'a': 0.1",
        ),
        ({"train": [1]}, "must have the keys 'train' and 'test'"),
        ({"train": [1], "test": []}, "lists of {'train': 1, 'test': 0} tasks"),
        ({"train": [1], "test": [2], "dev": [3]}, "Received: lists of"),
        ({"train": [1], "test": [[2, 3]]}, "the same parts and shapes"),
        ({"train": [{"a": 1}], "test": [{"b": 2}]}, "same parts and shapes"),
        ({"train": ["left"], "test": ["right"]}, "must consist of numbers"),
    ],
)
def test_lists_that_are_refused(lists, message):
    with pytest.raises(ValueError, match=message):
        environments.GymnasiumTasks(gymnasium_environments.line, lists, 5)


def faulty(fault, workers=2, rows=4, timeout=30.0):
    """Makes a family, and the tasks of rows, one of which is at fault."""
    lists = {"train": np.arange(100.0, 110.0), "test": [fault]}
    family = environments.GymnasiumTasks(
        gymnasium_environments.Faulty,
        lists,
        horizon=5,
        workers=workers,
        timeout=timeout,
    )
    tasks = np.arange(100.0, 100.0 + rows)
    tasks[-1] = fault
    return family, tf.constant(tasks, tf.float32)


def step_twice(family, tasks):
    carry, _ = family.start(tasks, tf.constant([1, 2]))
    for _ in range(2):
        carry, time_step = family.advance(carry, tf.zeros([len(tasks), 1]))
    return time_step


@pytest.mark.parametrize(
    "fault, error, message",
    [
        (1, RuntimeError, r"in task 1.*Traceback.*a broken joint"),
        (3, ValueError, r"rewards .* must be finite. Received: nan in task 3"),
        (4, RuntimeError, r"its end, with exit code -9, in tasks \[102, 4\]"),
        (5, RuntimeError, r"in task 5.*SystemExit: 3"),
        (6, ValueError, r"must fit the space.*Received: shape \(1,\).*task 6"),
        (90, RuntimeError, r"in task 90.*OSError: no such robot"),
        (
            91,
            ValueError,
            r"the same spaces. Received: task 10\d with .*Box\(-0.5, 0.5.*; "
            r"task 91 with .* actions Discrete\(2\)",
        ),
    ],
)
@pytest.mark.usefixtures("no_more_workers")
def test_errors_name_the_task_and_end_all_workers(fault, error, message):
    family, tasks = faulty(fault)
    with pytest.raises(error, match=f"(?s){message}") as raised:
        step_twice(family, tasks)
    assert "All workers were closed" in str(raised.value)
    with pytest.raises(RuntimeError, match="Make the environment anew"):
        family.reset()


@pytest.mark.usefixtures("no_more_workers")
def test_an_environment_that_hangs_is_found():
    family, tasks = faulty(2, timeout=3.0)
    begin = time.monotonic()
    with pytest.raises(
        RuntimeError,
        match=r"within timeout=3 seconds. Received: nothing, from tasks "
        r"\[102, 2\]",
    ):
        step_twice(family, tasks)
    assert time.monotonic() - begin < 60


def test_a_worker_that_was_killed_is_found_and_prints_are_not_lost(
    capfd, no_more_workers
):
    family, tasks = faulty(7)
    step_twice(family, tasks)
    assert "noise among the answers" in capfd.readouterr().err
    processes(family)[0].kill()
    with pytest.raises(RuntimeError, match=r"exit code -9, in tasks \[10"):
        step_twice(family, tasks)


@pytest.mark.parametrize("fault, message", [(1, "broken joint"), (3, "nan")])
@pytest.mark.usefixtures("no_more_workers")
def test_errors_in_a_graph_say_the_same(fault, message):
    family, tasks = faulty(fault, workers=1)
    policy = random_tf_policy.RandomTFPolicy(
        family.time_step_spec(), family.action_spec()
    )
    collect = tf.function(
        lambda tasks: rollouts.collect(family, policy, tasks)[0],
        autograph=False,
    )
    with pytest.raises(tf.errors.OpError, match=f"(?s)task {fault}.*{message}"):
        collect(tasks)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            gymnasium_environments.Tuples,
            ValueError,
            "The observation space .* must be one of Box, .*, Dict. Received: "
            r"Tuple\(",
        ),
        (
            gymnasium_environments.DictActions,
            ValueError,
            r"The action space .* must be one of .*MultiDiscrete. Received: "
            r"Dict\(",
        ),
        (lambda task: 7, ValueError, "must return a gymnasium env.*: 7 for"),
        (lambda task: {}[task], RuntimeError, "in task 1.*KeyError: 1.0"),
    ],
)
@pytest.mark.usefixtures("no_more_workers")
def test_what_make_returns_is_checked(make, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        environments.GymnasiumTasks(
            make, {"train": [1.0], "test": [2.0]}, horizon=5, workers=1
        )


def test_rows_go_on_from_their_last_step():
    with environments.GymnasiumTasks(
        gymnasium_environments.line, draw_goals, horizon=5, workers=1
    ) as family:
        family.reset()
        carry, _ = family.start(tf.constant([1.0]), tf.constant([1, 2]))
        with pytest.raises(ValueError, match="moved on since.*Begin anew"):
            family.step([[0.0]])
        family.advance(carry, [[0.0]])
        with pytest.raises(ValueError, match="go on from its last step"):
            family.advance(carry, [[0.0]])
        # It is not broken by that.
        family.reset()
        family.step([[0.0]])


@pytest.mark.parametrize(
    "settings, error, message",
    [
        (dict(make=7), TypeError, "`make` must be a function. Received"),
        (dict(set_task=7), TypeError, "`set_task` must be a function"),
        (dict(tasks=7), TypeError, "a function, or a dictionary of lists"),
        (dict(horizon=0), ValueError, "`horizon` must be an integer"),
        (dict(workers=0), ValueError, "`workers` must be an integer"),
        (dict(timeout=0), ValueError, "`timeout` must be a finite number"),
        (
            dict(make=lambda task, lock=threading.Lock(): lock),
            ValueError,
            "pickled",
        ),
    ],
)
def test_bad_arguments(settings, error, message):
    valid = dict(make=gymnasium_environments.line, tasks=NUMBERS, horizon=5)
    with pytest.raises(error, match=message):
        environments.GymnasiumTasks(**valid | settings)


def test_a_split_without_a_list_is_named():
    with environments.GymnasiumTasks(
        gymnasium_environments.line, NUMBERS, horizon=5, workers=1
    ) as family:
        with pytest.raises(ValueError, match="split='validation', where .'te"):
            family.sample_tasks(1, "validation")


def test_workers_end_with_the_family_even_where_a_graph_remains():
    before = workers()
    family = make_family()
    policy = random_tf_policy.RandomTFPolicy(
        family.time_step_spec(), family.action_spec()
    )

    def collect(family):
        @tf.function(autograph=False)
        def run(tasks):
            return rollouts.collect(family, policy, tasks)[0].reward

        return run.get_concrete_function(family.sample_tasks(2))

    graph = collect(family)
    graph(family.sample_tasks(2))
    assert workers() == before + 1
    held = weakref.ref(family)
    tasks = family.sample_tasks(2)
    del family
    gc.collect()
    assert held() is None
    assert workers() == before
    with pytest.raises(tf.errors.OpError, match="has outlived the family"):
        graph(tasks)


def test_a_script_needs_no_guard_and_leaves_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import subprocess

            import gymnasium
            import numpy as np

            print("begins")
            import keras_meta.rl

            class Point(gymnasium.Env):
                observation_space = gymnasium.spaces.Box(-9, 9, [1])
                action_space = gymnasium.spaces.Box(-1, 1, [1])

                def __init__(self, goal):
                    self.goal = goal

                def reset(self, seed=None, options=None):
                    super().reset(seed=seed)
                    return np.zeros(1, np.float32), {}

                def step(self, action):
                    return action, self.goal, False, False, {}

            family = keras_meta.rl.environments.GymnasiumTasks(
                Point, {"train": [3], "test": [4]}, horizon=5, workers=2
            )
            family.reset()
            print("reward", family.step([[0.0]]).reward.numpy())
            print("worker", family._pool._workers[0].process.pid)
            """
        )
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("begins") == 1
    assert "reward [3.]" in result.stdout
    worker = int(re.search(r"worker (\d+)", result.stdout)[1])
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_gymnasium_that_is_missing_is_an_error_with_the_remedy(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "gymnasium" else find(name, *rest),
    )
    with pytest.raises(ImportError, match="pip install gymnasium"):
        environments.GymnasiumTasks(
            gymnasium_environments.line, NUMBERS, horizon=5
        )
