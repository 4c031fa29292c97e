from keras_meta import masks


def test_items_are_chosen_and_replaced_in_their_order():
    mask = [True, False, True]
    assert masks.chosen("abc", mask) == ["a", "c"]
    assert masks.with_chosen("abc", mask, "xy") == ["x", "b", "y"]
    nothing = [False] * 3
    assert masks.chosen("abc", nothing) == []
    assert masks.with_chosen("abc", nothing, []) == ["a", "b", "c"]
