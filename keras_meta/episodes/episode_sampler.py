"""Which classes and examples an episode holds, by its number."""

import collections
import numbers

import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta.episodes import labeled_examples
from keras_meta.episodes import random_streams

# Of Meta-Dataset: no class counts for more support examples than this when
# the size of a support set is drawn.
_COUNTED_SHOTS = 100

# Where there are so many times more classes than ways, random numbers are drawn
# until there are enough that differ, and not one for each class. Of twice the
# ways and some more, so few are the same that the chance of too few others is
# less than 1e-27.
_FEW, _SPARE = 16, 16

# How the support examples of a class are drawn there.
IMBALANCED = "imbalanced"
# From which classes the ways of an episode come, and how likely they are.
WITHIN = (None, "group", "hierarchy")
CLASS_ODDS = ("equal", "examples")

Drawn = collections.namedtuple(
    "Drawn", ["positions", "labels", "weight", "variants"]
)
Drawn.__doc__ = """What was drawn for support or query sets.

Attributes:
    positions: Tensor `[tasks, examples]`, int32, the place of each example.
    labels: Tensor `[tasks, examples]`, int32, its way.
    weight: Tensor `[tasks, examples]`, float32, 0 where padded; `None` where
        all episodes are of one size.
    variants: Tensor `[tasks, examples]`, int32, which variant of the example
        it is; `None` where there is one only.
"""


class EpisodeSampler:
    """Draws the classes and examples of episodes, in the graph.

    Classes are drawn from a pool: all of them, or those of one group, or of
    one node of a tree. Padding repeats examples that the episode has anyway,
    so that nothing that sees it (batch normalization, say) sees anything new.

    Args:
        labels: Integer array `[examples]`.
        variants: Integer, how many classes each class stands for, told apart
            by what is done to its examples.
        Others: See `keras_meta.episodes.from_arrays()`.
    """

    def __init__(
        self,
        labels,
        ways,
        shots,
        queries,
        classes=None,
        groups=None,
        within=None,
        class_odds="equal",
        max_support=500,
        variants=1,
        seed=0,
    ):
        self.ways, self.shots, self.queries = check_sizes(
            ways, shots, queries, max_support
        )
        self.imbalanced = self.shots is None
        arguments.check_choice("within", within, WITHIN)
        arguments.check_choice("class_odds", class_odds, CLASS_ODDS)
        self.within = within
        self.class_odds = class_odds
        self.variants = variants
        self.seed = int(seed)
        self.classes, order, starts, counts = labeled_examples.class_table(
            labels, classes
        )
        self.total_classes = len(np.unique(labels))
        pools = self._pools(labels, groups)
        self._check_examples(counts)
        # What no episode can have is not drawn.
        most = max(map(len, pools))
        self.ways = (self.ways[0], min(self.ways[1], most))
        if self.imbalanced and max_support < self.ways[1]:
            raise ValueError(
                "`max_support` must be at least the number of ways, for one "
                f"example of each. Received: max_support={max_support} for up "
                f"to {self.ways[1]} ways."
            )
        self.max_support = int(max_support)
        self.fixed = not self.imbalanced and all(
            low == high for low, high in (self.ways, self.shots, self.queries)
        )
        self._order = tf.constant(order)
        self._starts = tf.constant(starts)
        self._largest = self._example_keys = int(counts.max())
        if not self.imbalanced:
            # Of larger classes a few numbers are drawn, as of many classes.
            drawn = self.shots[1] + self.queries[1]
            self._example_keys = min(self._largest, _FEW * drawn + _SPARE)
        self._counts = tf.constant(counts)
        self._unequal = bool(np.any(counts != counts[0]))
        self._pool_sizes = tf.constant([len(pool) for pool in pools], "int32")
        self._pool_table = None
        if len(pools) > 1:
            self._pool_table = tf.ragged.constant(pools, dtype="int32")
            self._pool_table = self._pool_table.to_tensor()
        self._most_classes = self._class_keys = most
        self.pools = len(pools)
        self._few = (
            self.pools == 1
            and class_odds == "equal"
            and most >= _FEW * self.ways[1]
        )
        if self._few:
            self._class_keys = 2 * self.ways[1] + _SPARE

    @property
    def support_size(self):
        """The most support examples of an episode."""
        if self.imbalanced:
            room = self.ways[1] * (self._largest - 1)
            return min(self.max_support, room)
        return self.ways[1] * self.shots[1]

    @property
    def query_size(self):
        """The most queries of an episode."""
        queries = self.queries[1]
        if self.imbalanced:
            # Never more than half the smallest class of the episode.
            queries = min(queries, self._largest // 2)
        return self.ways[1] * queries

    def sample(self, first_episode, episodes):
        """Returns a pair of `Drawn`, of the support and of the query sets.

        Args:
            first_episode: Integer tensor, the number of the first episode.
            episodes: Integer, how many episodes.
        """
        keys, example_keys, extra = self._numbers(first_episode, episodes)
        chosen, available = self._draw_classes(keys, extra)
        bases, variants = chosen, None
        if self.variants > 1:
            bases, variants = chosen // self.variants, chosen % self.variants
            # All variants of a class share one order of its examples, or one
            # would show as a query what another has in its support set.
            same = bases[:, :, None] == bases[:, None, :]
            same = tf.cast(same, "int32")
            first = tf.argmax(same, axis=-1, output_type="int32")
            example_keys = tf.gather(example_keys, first, batch_dims=1)
        places = self._draw_examples(bases, example_keys)
        if self.fixed:
            shots = self.shots[1]
            return (
                _whole(places[..., :shots], variants),
                _whole(places[..., shots:], variants),
            )
        ways = self._draw(extra[:, 1], self.ways, available)
        present = tf.range(self.ways[1]) < ways[:, None]
        shots, queries = self._draw_sizes(extra[:, 2:], bases, present, ways)
        column = tf.range(places.shape[2])
        # The queries first: in an episode all classes have as many, so that
        # variants of one class, whose shots differ, still share none.
        last = (shots + queries)[..., None]
        in_query = (column < queries[..., None]) & present[..., None]
        in_support = (column < last) & present[..., None] & ~in_query
        support = _compact(places, variants, in_support, self.support_size)
        query = _compact(places, variants, in_query, self.query_size)
        # So that tasks of fewer queries count as much: the mean is 1.
        weight = query.weight / tf.reduce_mean(
            query.weight, axis=1, keepdims=True
        )
        return support, query._replace(weight=weight)

    def _numbers(self, first_episode, episodes):
        """Returns keys of classes and of examples, and what else is drawn."""
        ways, largest = self.ways[1], self._example_keys
        own = self._class_keys + ways * largest
        # The pool, the ways, the shots, the queries; the share of each class.
        extra = 0 if self.fixed and self.pools == 1 else 4 + ways
        row = random_streams.integers(
            self.seed, first_episode, episodes, own + extra
        )
        example_keys = row[:, self._class_keys : own]
        return (
            row[:, : self._class_keys],
            tf.reshape(example_keys, [-1, ways, largest]),
            row[:, own:],
        )

    def _draw_classes(self, keys, extra):
        """Returns classes `[tasks, ways]`, and how many there were."""
        members, available = None, self._pool_sizes[:1]
        if self._few:
            return self._draw_few_classes(keys), available
        if self.pools > 1:
            pool = tf.math.floormod(extra[:, 0], self.pools)
            members = tf.gather(self._pool_table, pool)
            available = tf.gather(self._pool_sizes, pool)
        if self.class_odds == "examples":
            rows = members
            if rows is None:
                rows = tf.range(self._most_classes)[None]
            counts = tf.gather(self._counts, rows // self.variants)
            # Whoever comes first in a race in which a class of twice the
            # examples is twice as fast. In float64 the last bit of a
            # logarithm, which machines may differ in, decides nothing.
            keys = tf.math.log(_unit(keys)) / tf.cast(counts, "float64")
        if members is not None:
            inside = tf.range(self._most_classes) < available[:, None]
            keys = tf.where(inside, keys, keys.dtype.min)
        # The largest few of random keys are a uniform draw without
        # replacement, in random order.
        chosen = tf.math.top_k(keys, self.ways[1]).indices
        if members is not None:
            chosen = tf.gather(members, chosen, batch_dims=1)
        return chosen, available

    def _draw_few_classes(self, keys):
        """Returns the first classes that differ from those before them."""
        drawn = tf.math.floormod(keys, self._most_classes)
        return _first_different(drawn, self.ways[1])

    def _draw_examples(self, bases, keys):
        """Returns positions `[tasks, ways, examples]` in random order."""
        largest = self._example_keys
        if self.imbalanced:
            examples = min(largest, self.max_support + self.queries[1])
        else:
            examples = self.shots[1] + self.queries[1]
        counts = tf.gather(self._counts, bases)[..., None]
        if self._unequal:
            keys = tf.where(tf.range(largest) < counts, keys, tf.int32.min)
        order = tf.math.top_k(keys, examples).indices
        if largest < self._largest:
            few = _first_different(
                tf.math.floormod(keys[..., : 2 * examples + _SPARE], counts),
                examples,
            )
            order = tf.where(counts > largest, few, order)
        if self._unequal:
            # What is beyond a class is never chosen, but must be in range.
            order = tf.minimum(order, counts - 1)
        places = tf.gather(self._starts, bases)[..., None] + order
        return tf.gather(self._order, places)

    def _draw_sizes(self, extra, bases, present, ways):
        """Returns the shots and the queries of each class, `[tasks, ways]`."""
        if not self.imbalanced:
            shots = self._draw(extra[:, 0], self.shots)
            queries = self._draw(extra[:, 1], self.queries)
            zeros = tf.zeros_like(bases)
            return zeros + shots[:, None], zeros + queries[:, None]
        present = tf.cast(present, "float64")
        sizes = tf.cast(tf.gather(self._counts, bases), "float64")
        smallest = tf.reduce_min(
            tf.where(present > 0, sizes, np.inf), axis=1, keepdims=True
        )
        most = tf.constant(self.queries[1], "float64")
        queries = tf.minimum(most, tf.floor(0.5 * smallest))
        room = sizes - queries
        wanted = tf.math.ceil(
            _unit(extra[:, :1]) * tf.minimum(room, float(_COUNTED_SHOTS))
        )
        total = tf.reduce_sum(present * wanted, axis=1, keepdims=True)
        total = tf.minimum(total, float(self.max_support))
        # From half to twice the share that a class has by its size.
        skew = tf.exp(np.log(4.0) * _unit(extra[:, 2:]) - np.log(2.0))
        share = present * skew * sizes
        share /= tf.reduce_sum(share, axis=1, keepdims=True)
        left = total - tf.cast(ways, "float64")[:, None]
        shots = tf.minimum(tf.floor(share * left) + 1, room)
        queries = queries + tf.zeros_like(sizes)
        return tf.cast(shots, "int32"), tf.cast(queries, "int32")

    @staticmethod
    def _draw(keys, limits, available=None):
        """Returns integers between two limits, both included."""
        low, high = limits
        if available is not None:
            high = tf.minimum(high, available)
        return low + tf.math.floormod(keys, high - low + 1)

    def _pools(self, labels, groups):
        """Returns lists of classes to draw the ways of an episode from."""
        count = len(self.classes) * self.variants
        if self.within is None:
            if count < self.ways[0]:
                raise ValueError(
                    "`ways` must not exceed the number of classes. Received: "
                    f"ways={self.ways[0]}, but there are {count} classes. "
                    "Lower `ways`, or add classes."
                )
            return [range(count)]
        groups = labeled_examples.groups_of(labels, groups, self.classes)
        if groups is None:
            raise ValueError(
                "`groups` must name the group of each class, to draw episodes "
                f"within one. Received: groups=None and within={self.within!r}."
            )
        members = collections.defaultdict(list)
        for row, group in enumerate(groups):
            nodes = [group]
            if self.within == "hierarchy":
                parts = group.split("/")
                nodes = ["/".join(parts[:end]) for end in range(len(parts) + 1)]
            for node in nodes:
                first = row * self.variants
                members[node].extend(range(first, first + self.variants))
        small = {
            name: len(pool)
            for name, pool in sorted(members.items())
            if len(pool) < self.ways[0]
        }
        if small and (self.within == "group" or len(small) == len(members)):
            listed = [f"{name!r} has {size}" for name, size in small.items()]
            raise ValueError(
                "The groups must have at least `ways` classes. Received: "
                f"ways={self.ways[0]}, but {', '.join(listed[:5])}"
                f"{' and more' if len(listed) > 5 else ''}. Lower `ways`, or "
                "leave these groups out with `classes`."
            )
        # A node of a single child has its classes, and would count twice.
        pools = {tuple(p): None for name, p in sorted(members.items())}
        return [list(pool) for pool in pools if len(pool) >= self.ways[0]]

    def _check_examples(self, counts):
        if self.imbalanced:
            examples, what, advice = 2, "2, one to show and one to ask", ""
        else:
            examples = self.shots[1] + self.queries[1]
            what = f"shots + queries = {examples}"
            advice = "Lower `shots` or `queries`, or leave"
        smallest = counts.argmin()
        if counts[smallest] < examples:
            raise ValueError(
                "`shots + queries` must not exceed the smallest class. "
                f"Received: {what}, but class {self.classes[smallest]} has "
                f"{counts[smallest]} examples. {advice or 'Leave'} the class "
                "out with `classes`."
            )


def check_sizes(ways, shots, queries, max_support):
    """Checks the sizes of episodes; returns the fewest and the most of each.

    Returns:
        A tuple of pairs, of ways, shots and queries; that of the shots is
        `None` where they are imbalanced.
    """
    arguments.check_positive_integer("max_support", max_support)
    imbalanced = isinstance(shots, str) and shots == IMBALANCED
    if imbalanced:
        arguments.check_positive_integer("queries", queries)
    return (
        _limits("ways", ways),
        None if imbalanced else _limits("shots", shots),
        _limits("queries", queries),
    )


def _limits(name, value):
    """Returns the smallest and the largest of what is drawn."""
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2
    limits = value if is_pair else (value, value)
    advice = "A pair, the fewest and the most, draws them for each episode"
    if name == "shots":
        advice += f", and {IMBALANCED!r} for each class"
    received = f"Received: {name}={value!r}. {advice}."
    for limit in limits:
        is_integer = isinstance(limit, numbers.Integral)
        if not is_integer or isinstance(limit, bool) or limit < 1:
            raise ValueError(
                f"`{name}` must be an integer of 1 or more. {received}"
            )
    if limits[0] > limits[1]:
        raise ValueError(f"`{name}` must have the fewest first. {received}")
    # Integers of NumPy would make labels of their own dtype.
    return int(limits[0]), int(limits[1])


def _first_different(drawn, count):
    """Returns the first `count` numbers that differ, of the last axis."""
    same = drawn[..., :, None] == drawn[..., None, :]
    before = np.tri(drawn.shape[-1], k=-1, dtype=bool)
    again = tf.reduce_any(same & before, axis=-1)
    # Of equal values the first comes first.
    first = tf.math.top_k(tf.cast(~again, "int32"), count).indices
    return tf.gather(drawn, first, batch_dims=len(drawn.shape) - 1)


def _unit(keys):
    """Turns integers of 32 bits into numbers above 0 and up to 1."""
    return (tf.cast(keys, "float64") + (2.0**31 + 1.0)) / 2.0**32


def _whole(places, variants):
    """Returns what was drawn, where nothing is padded."""
    count, ways, examples = places.shape

    def merge(values):
        return tf.reshape(values, [count, ways * examples])

    if variants is not None:
        variants = merge(tf.broadcast_to(variants[..., None], places.shape))
    # A constant: to make it anew each time takes as long as all the rest.
    labels = np.tile(np.repeat(np.arange(ways, dtype="int32"), examples), count)
    return Drawn(merge(places), merge(tf.constant(labels)), None, variants)


def _compact(places, variants, chosen, size):
    """Moves what was drawn to the front, and repeats it as padding."""
    count, ways, examples = places.shape

    def merge(values):
        return tf.reshape(values, [count, ways * examples])

    chosen = merge(chosen)
    # Of equal values the first comes first, so that the order stays.
    order = tf.math.top_k(tf.cast(chosen, "int32"), size).indices
    counts = tf.reduce_sum(tf.cast(chosen, "int32"), axis=1, keepdims=True)
    column = tf.range(size)[None]
    order = tf.gather(order, column % counts, batch_dims=1)
    labels = order // examples
    if variants is not None:
        variants = tf.gather(variants, labels, batch_dims=1)
    return Drawn(
        tf.gather(merge(places), order, batch_dims=1),
        labels,
        tf.cast(column < counts, "float32"),
        variants,
    )
