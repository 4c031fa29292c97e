import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments


def needs(*packages):
    missing = [
        package
        for package in packages
        if importlib.util.find_spec(package) is None
    ]
    return pytest.mark.skipif(
        bool(missing), reason=f"not installed: {', '.join(missing)}"
    )


installed = needs("gymnasium", "mujoco")


@installed
@pytest.mark.parametrize(
    "name, goals",
    [
        ("HalfCheetahDirections", [1.0, -1.0]),
        ("HalfCheetahVelocities", [0.25, 1.75]),
    ],
)
def test_rewards_are_those_of_the_papers(name, goals, tmp_path, monkeypatch):
    import gymnasium

    # MuJoCo writes a file of what it warns of.
    monkeypatch.chdir(tmp_path)
    plain = gymnasium.make("HalfCheetah-v5")
    generator = np.random.default_rng(0)
    with getattr(environments, name)(horizon=10, workers=1) as family:
        assert tuple(family.observation_spec().shape) == (17,)
        assert tuple(family.action_spec().shape) == (6,)
        # Other goals first, so that the cheetahs are used again.
        family.start(tf.constant([0.5, 0.5]), tf.constant([1, 2]))
        carry, time_step = family.start(tf.constant(goals), tf.constant([3, 4]))
        states = []
        for row in (0, 1):
            # The plain cheetah, in the state that the row is in.
            plain.reset(seed=0)
            observation = time_step.observation[row].numpy()
            states.append(
                (np.r_[0.0, observation[:8]], observation[8:].astype(float))
            )
        for _ in range(3):
            actions = generator.uniform(-1, 1, [2, 6]).astype("float32")
            carry, time_step = family.advance(carry, tf.constant(actions))
            for row, goal in enumerate(goals):
                plain.unwrapped.set_state(*states[row])
                _, _, _, _, info = plain.step(actions[row])
                data = plain.unwrapped.data
                states[row] = data.qpos.copy(), data.qvel.copy()
                velocity = info["x_velocity"]
                expected = -0.05 * np.sum(np.square(actions[row]))
                if name == "HalfCheetahDirections":
                    expected += goal * velocity
                else:
                    expected -= abs(velocity - goal)
                assert abs(time_step.reward[row] - expected) < 0.01
    plain.close()


@installed
def test_tasks_and_the_horizon():
    with environments.HalfCheetahVelocities(workers=1) as family:
        assert family.horizon == 100
        train, test = [family.sample_tasks(500, s) for s in ("train", "test")]
        assert not set(train.numpy()) & set(test.numpy())
        np.testing.assert_allclose(
            np.quantile(train, [0, 0.5, 1]), [0, 1, 2], atol=0.15
        )
    with environments.HalfCheetahDirections(horizon=2, workers=1) as family:
        for split in ("train", "test"):
            drawn = family.sample_tasks(500, split).numpy()
            assert set(drawn) == {-1.0, 1.0}
            assert abs(drawn.mean()) < 0.2
        family.reset()
        types = [
            int(family.step(tf.zeros([1, 6])).step_type[0]) for _ in range(3)
        ]
        assert types == [1, 2, 0]


@pytest.mark.parametrize("package", ["gymnasium", "mujoco"])
def test_a_missing_package_is_an_error_with_the_remedy(package, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == package else find(name, *rest),
    )
    with pytest.raises(
        ImportError,
        match=rf"(?s)package {package}.*pip install 'gymnasium.mujoco",
    ):
        environments.HalfCheetahVelocities()
