import datetime

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes

SAMPLING = dict(
    ways=3, shots=1, queries=2, meta_batch_size=4, episodes=8, seed=3
)


def animals(rows=20):
    """Returns columns of four species."""
    generator = np.random.default_rng(0)
    species = generator.permutation(
        np.repeat(["wren", "bear", "fox", "lynx"], rows // 4)
    )
    return {
        "height": generator.normal(size=rows),
        "species": species,
        "legs": np.where(species == "wren", 2, 4),
        "young": generator.random(rows) < 0.5,
        "color": generator.choice(["brown", "gray"], size=rows),
        "order": np.where(species == "wren", "bird", "mammal"),
    }


# Of which only `height`, `legs` and `young` are numbers.
NUMBERS = ["height", "legs", "young"]


def numbers_of(table):
    x = np.stack([np.asarray(table[name], float) for name in NUMBERS], axis=1)
    species = sorted(set(table["species"]))
    return x.astype("float32"), [species.index(s) for s in table["species"]]


def assert_same(one, other):
    for pair in zip(one, other, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, *pair)


def from_animals(table, **settings):
    settings = dict(label="species", features=NUMBERS) | SAMPLING | settings
    return episodes.from_table(table, **settings)


@pytest.fixture(params=["dict", "lists", "pandas"])
def kind(request):
    """A function that makes a table of a dictionary of arrays."""
    if request.param == "pandas":
        pandas = pytest.importorskip("pandas", reason="Needs pandas.")
        return pandas.DataFrame
    if request.param == "lists":
        return lambda table: {k: list(v) for k, v in table.items()}
    return dict


def test_gives_the_episodes_of_the_columns(kind):
    table = animals()
    expected = episodes.from_arrays(*numbers_of(table), **SAMPLING)
    assert expected.element_spec[0]["support_x"].shape == (4, 3, 3)
    assert_same(from_animals(kind(table)), expected)


def test_all_columns_but_label_and_group_are_shown():
    table = animals()
    del table["color"]
    shown = from_animals(table, features=None, group="order")
    assert_same(shown, from_animals(table))
    table["species"] = np.unique(table["species"], return_inverse=True)[1] - 9
    assert_same(from_animals(table, features=None, group="order"), shown)


def test_the_order_of_features_is_that_of_the_argument():
    table = animals()
    found = from_animals(table, features=["legs", "height"])
    expected = from_animals(table)
    for (x, _), (expected_x, _) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(
            x["query_x"], expected_x["query_x"].numpy()[..., [1, 0]]
        )


def test_groups_and_classes_by_name(kind):
    table = animals()
    settings = dict(ways=2)
    expected = from_animals(table, classes=[0, 1, 2], **settings)
    table = kind(table)
    mammals = from_animals(table, group="order", classes=["mammal"], **settings)
    assert_same(mammals, expected)
    named = from_animals(table, classes=["fox", "bear", "lynx"], **settings)
    assert_same(named, expected)
    within = from_animals(
        table, group="order", within="group", classes=["mammal"], **settings
    )
    for (x, y), (expected_x, _) in zip(within, expected, strict=True):
        assert x["query_x"].shape == expected_x["query_x"].shape
        assert np.all(x["query_x"].numpy()[..., 1] == 4)
    scattered = animals()
    scattered["order"] = np.resize(["bird", "mammal"], 20)
    with pytest.raises(ValueError, match="A class must lie in one group"):
        from_animals(scattered, group="order")


def test_encode_makes_numbers_of_any_columns(kind):
    table = animals()

    def encode(columns):
        assert set(columns) == {"height", "color"}
        gray = np.array([color == "gray" for color in columns["color"]])
        return {"gray": gray, "height": columns["height"] * 2}

    found = from_animals(
        kind(table), features=["height", "color"], encode=encode
    )
    _, y = numbers_of(table)
    x = {"gray": table["color"] == "gray", "height": table["height"] * 2}
    assert_same(found, episodes.from_arrays(x, y, **SAMPLING))


def test_encode_may_be_an_adapted_feature_space(kind):
    table = animals()
    space = keras.utils.FeatureSpace(
        {
            "legs": keras.utils.FeatureSpace.float_normalized(),
            "color": keras.utils.FeatureSpace.string_categorical(
                num_oov_indices=0
            ),
        },
        output_mode="concat",
    )
    columns = {name: table[name] for name in ("legs", "color")}
    space.adapt(tf.data.Dataset.from_tensor_slices(columns))
    found = from_animals(kind(table), features=["legs", "color"], encode=space)
    # In the order of their names; of the colors, the most frequent first.
    colors, counts = np.unique(table["color"], return_counts=True)
    assert counts[0] != counts[1]
    one_hot = table["color"][:, None] == colors[np.argsort(-counts)]
    legs = (table["legs"] - table["legs"].mean()) / table["legs"].std()
    _, y = numbers_of(table)
    expected = episodes.from_arrays(
        np.column_stack([one_hot, legs]).astype("float32"), y, **SAMPLING
    )
    for (x, _), (expected_x, _) in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            x["query_x"], expected_x["query_x"], atol=1e-5
        )


def test_encode_may_fill_what_is_missing(kind):
    table = animals()
    whole = table["height"].copy()
    table["height"][[3, 8]] = np.nan
    found = from_animals(
        kind(table),
        features=["height"],
        encode=lambda columns: np.nan_to_num(columns["height"], nan=-1.0),
    )
    whole[[3, 8]] = -1
    _, y = numbers_of(animals())
    assert_same(found, episodes.from_arrays(whole, y, **SAMPLING))
    with pytest.raises(ValueError, match="fill what is missing.*2 values are"):
        from_animals(
            kind(table),
            features=["height"],
            encode=lambda columns: columns["height"],
        )


def test_columns_of_objects_that_are_numbers_are_numbers():
    table = animals()
    expected = from_animals(table)
    table["legs"] = table["legs"].astype(object)
    table["species"] = table["species"].astype(object)
    assert_same(from_animals(table), expected)


def test_kinds_of_columns_that_pandas_has_of_its_own():
    pandas = pytest.importorskip("pandas", reason="Needs pandas.")
    table = pandas.DataFrame(animals())
    expected = from_animals(table)
    table["legs"] = table["legs"].astype("Int64")
    table["species"] = table["species"].astype("category")
    assert_same(from_animals(table), expected)
    table["species"] = table["species"].astype("string")
    assert_same(from_animals(table), expected)
    table.loc[4, "legs"] = pandas.NA
    with pytest.raises(ValueError, match="'legs', where 1 of 20 values"):
        from_animals(table)
    table = pandas.DataFrame(animals())
    table.columns = ["height", "species", "legs", "legs", "color", "order"]
    with pytest.raises(ValueError, match="two named 'legs'"):
        from_animals(table, features=["legs"])


def changed(**columns):
    return animals() | columns


def with_gap(name, value, dtype=object):
    column = np.array(animals()[name], dtype)
    column[5] = value
    return changed(**{name: column})


DAY = datetime.datetime(2024, 2, 29)


@pytest.mark.parametrize(
    "table, settings, error, message",
    [
        ([[1, 2]], {}, TypeError, "type list"),
        (
            animals(),
            dict(features=None),
            ValueError,
            "Received: 'color' of dtype <U5.*pass `encode`.*FeatureSpace",
        ),
        (
            with_gap("height", np.nan, float),
            {},
            ValueError,
            "'height', where 1 of 20 values are missing. Fill them",
        ),
        (with_gap("legs", None), {}, ValueError, "'legs', where 1 of 20"),
        (
            with_gap("species", None),
            {},
            ValueError,
            "label.*'species', where 1",
        ),
        (
            with_gap("order", float("nan")),
            dict(group="order"),
            ValueError,
            "'order', where 1 of 20",
        ),
        (
            changed(legs=np.full(20, DAY, "datetime64[s]")),
            {},
            ValueError,
            r"'legs' of dtype datetime64\[s\]",
        ),
        (
            changed(legs=np.zeros(19)),
            {},
            ValueError,
            "same length.*'height': 20.*'legs': 19",
        ),
        (changed(legs=np.zeros((20, 2))), {}, ValueError, r"shape \(20, 2\)"),
        (animals(), dict(label="kind"), ValueError, "'kind'. There are: .'hei"),
        (animals(), dict(group="kind"), ValueError, "'kind'. There are"),
        (animals(), dict(features=["x"]), ValueError, "'x'. There are"),
        (animals(), dict(features="legs"), TypeError, r"Write `\['legs'\]`"),
        (animals(), dict(features=[]), ValueError, "at least one column"),
        (
            animals(),
            dict(features=["legs", "species"]),
            ValueError,
            "must not hold the label",
        ),
        (
            animals(),
            dict(label="height", features=["legs"]),
            TypeError,
            "float",
        ),
        (animals(), dict(encode="one_hot"), TypeError, "encode='one_hot'"),
        (
            animals(),
            dict(encode=lambda columns: columns["legs"][:3]),
            ValueError,
            r"\[20, ...\]. Received: shape \(3,\)",
        ),
        (
            {"species": ["a", "b"]},
            dict(features=None),
            ValueError,
            "at least one column to show",
        ),
        (
            {"species": [], "legs": []},
            dict(features=["legs"]),
            ValueError,
            "at",
        ),
    ],
)
def test_refuses(table, settings, error, message):
    with pytest.raises(error, match=message):
        from_animals(table, **settings)
