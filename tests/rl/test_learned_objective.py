import keras
import numpy as np
import pytest

import keras_meta.rl


def inputs(actions=2, seed=0):
    generator = np.random.default_rng(seed)
    shape = [3, 5]
    made = {
        name: generator.normal(size=shape)
        for name in ("reward", "value", "next_value")
    }
    for name in ("action", "policy_action"):
        made[name] = generator.uniform(-1, 1, size=[*shape, actions])
    made["goes_on"] = np.ones(shape)
    made["goes_on"][0, 2] = 0.0
    return {name: part.astype("float32") for name, part in made.items()}


@pytest.fixture
def objective():
    keras.utils.set_random_seed(0)
    return keras_meta.rl.LearnedObjective(units=6)


def test_it_reads_backwards_and_not_over_an_end(objective):
    before = inputs()
    losses = objective(before).numpy()
    assert losses.shape == (3, 5)
    changed = {**before, "action": before["action"].copy()}
    changed["action"][:, 3] += 0.5
    moved = np.abs(objective(changed).numpy() - losses) > 1e-6
    # What is done at a step counts for it and for all before it, but in the
    # first window a rollout ends between.
    assert moved[1:, :4].all() and moved[0, 3]
    assert not moved[0, :3].any() and not moved[:, 4].any()


def test_it_serves_any_number_of_actions_in_any_order(objective):
    assert objective(inputs(actions=5)).shape == (3, 5)
    one = inputs(actions=3)
    other = {
        **one,
        "action": one["action"][..., [2, 0, 1]],
        "policy_action": one["policy_action"][..., [2, 0, 1]],
    }
    np.testing.assert_allclose(objective(one), objective(other), atol=1e-6)


def test_units_of_rewards_do_not_matter(objective):
    one = inputs()
    other = {
        **one,
        **{
            name: 1000 * one[name] for name in ("reward", "value", "next_value")
        },
    }
    np.testing.assert_allclose(
        objective(one), objective(other), rtol=2e-2, atol=2e-3
    )


def test_it_is_saved_whole(objective, tmp_path):
    objective.save(tmp_path / "objective.keras")
    loaded = keras.models.load_model(tmp_path / "objective.keras")
    assert loaded.discount == objective.discount
    np.testing.assert_array_equal(loaded(inputs()), objective(inputs()))


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ValueError, match="`discount` must be .*Received"):
        keras_meta.rl.LearnedObjective(discount=1.5)
    with pytest.raises(ValueError, match="`units` must be .*Received"):
        keras_meta.rl.LearnedObjective(units=0)
