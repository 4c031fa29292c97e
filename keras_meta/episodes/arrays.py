from keras_meta.episodes.labeled_examples import LabeledExamples
from keras_meta.episodes.sampled_episodes import sample_episodes


def from_arrays(
    x,
    y,
    ways,
    shots,
    queries,
    meta_batch_size=32,
    episodes=None,
    classes=None,
    groups=None,
    within=None,
    class_odds="equal",
    max_support=500,
    quarter_turns=False,
    mirrors=False,
    augment_support=None,
    augment_query=None,
    first_episode=0,
    shard=None,
    seed=0,
):
    """Makes few-shot classification episodes from labeled arrays.

    Each episode draws `ways` classes, and of each class `shots` examples for
    the support set and `queries` others for the query set. The classes of an
    episode are numbered anew, 0 to `ways - 1`, in random order. Everything
    runs in the `tf.data` graph, and an image is read only when it is used.

    Episode number n is the same for the same data, settings and seed, on
    every run and in meta-batches of any size.

    All sources share the arguments from `ways` on: `from_directory()`,
    `from_zip()`, `from_tfds()`, `from_dataset()`, `from_records()`,
    `from_text()` and `from_table()`.

    Where `ways`, `shots` or `queries` are drawn, episodes are padded to the
    largest size with examples that they have anyway, of weight 0, so that one
    graph does for all. With `shots="imbalanced"` an episode is drawn as in
    Meta-Dataset: each class gets support examples of a number of its own,
    about in proportion to its size, and queries as many as `queries` or half
    the smallest class.

    Args:
        x: Array or tensor `[examples, ...]`, or a nested structure of such.
            Images of dtype uint8 come out as float32 from 0 to 1, everything
            else as it is.
        y: Integer array `[examples]`, the class of each example. Any
            integers; gaps do not matter.
        ways: Integer, the classes of an episode; or a pair, the fewest and
            the most, to draw them for each episode.
        shots: Integer, the support examples of each class; or a pair, to
            draw them for each episode; or `"imbalanced"`.
        queries: Integer, the query examples of each class; or a pair, to
            draw them for each episode.
        meta_batch_size: Integer, the episodes of a meta-batch. Defaults to
            `32`.
        episodes: Integer, the number of episodes: a fixed list, the same on
            every pass, for evaluation. `None` (the default) means without
            end, for training, and `fit()` then needs `steps_per_epoch`.
        classes: Optional sequence of labels, the classes to draw from; such
            as one part of a `keras_meta.episodes.class_split()`. Where the
            source names its classes and groups, these names do, too.
        groups: Optional sequence, the group of each class in the order of
            its label, or of each example: the alphabet of a character, say.
            Slashes make a tree of them, `"mammal/dog"`.
        within: `None` (the default) draws the ways of an episode from all
            classes; `"group"` from those of one group; `"hierarchy"` from
            those below one node of the tree, be it large or small. All groups
            (or nodes of at least `ways` classes) are equally likely.
        class_odds: `"equal"` (the default): all classes are equally likely;
            `"examples"`: in proportion to their numbers of examples.
        max_support: Integer, the most support examples of an episode with
            `shots="imbalanced"`. Defaults to `500`.
        quarter_turns: Boolean, whether images turned by 90, 180 and 270
            degrees are classes of their own. Defaults to `False`.
        mirrors: Boolean, whether mirrored images are. With both, a class
            becomes eight. Defaults to `False`.
        augment_support: Optional Keras layer, such as
            `keras.layers.RandomRotation`, or function, called with the
            support inputs of each task. Its random numbers are those of the
            episode.
        augment_query: The same for the queries.
        first_episode: Integer, the number of the episode to begin with, to go
            on where a run has stopped. Defaults to `0`.
        shard: Optional pair `(index, count)`, for one of several workers: the
            meta-batches `index`, `index + count` and so on.
        seed: Integer. Defaults to `0`.

    Returns:
        A `tf.data.Dataset` of `(x, y)`, where `x` is a dictionary of
        `support_x` `[tasks, ways * shots, ...]`, `support_y`
        `[tasks, ways * shots]` and `query_x` `[tasks, ways * queries, ...]`,
        and `y` the labels of the queries, int32 `[tasks, ways * queries]`.
        Where sizes are drawn, `x` also has `support_weight`, and the data set
        is one of `(x, y, sample_weight)`, 0 where padded. The mean of
        `sample_weight` is 1 in each task.

    Raises:
        ValueError, TypeError: Where the arrays do not fit each other, or
            hold too few classes or examples.

    Example:

    ```python
    x = np.random.uniform(size=(200, 28, 28, 1)).astype("float32")
    y = np.repeat(np.arange(10), 20)
    episodes = keras_meta.episodes.from_arrays(
        x, y, ways=5, shots=1, queries=15, meta_batch_size=4
    )
    ```

    Reference:
        - [Triantafillou et al., 2020](https://arxiv.org/abs/1903.03096), for
          `shots="imbalanced"` and `within="hierarchy"`
        - [Santoro et al., 2016](https://arxiv.org/abs/1605.06065), for
          `quarter_turns`
    """
    return sample_episodes(
        LabeledExamples(x, y, groups),
        ways,
        shots,
        queries,
        meta_batch_size=meta_batch_size,
        episodes=episodes,
        classes=classes,
        within=within,
        class_odds=class_odds,
        max_support=max_support,
        quarter_turns=quarter_turns,
        mirrors=mirrors,
        augment_support=augment_support,
        augment_query=augment_query,
        first_episode=first_episode,
        shard=shard,
        seed=seed,
    )
