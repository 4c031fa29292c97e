"""Episodes drawn from labeled examples, wherever those come from."""

import collections
import hashlib
import inspect

import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.episodes import augmentation
from keras_meta.episodes import image_variants
from keras_meta.episodes import labeled_examples
from keras_meta.episodes import meta_batches
from keras_meta.episodes.episode_sampler import CLASS_ODDS
from keras_meta.episodes.episode_sampler import WITHIN
from keras_meta.episodes.episode_sampler import EpisodeSampler
from keras_meta.episodes.episode_sampler import check_sizes

# Random numbers of augmentation: none that classes were drawn with.
_SUPPORT_STREAM, _QUERY_STREAM = 1, 2


class SampledEpisodes:
    """Makes episodes by their numbers; a `meta_batches.Recipe`.

    Args:
        examples: A `LabeledExamples`, or what has its attributes.
        sampler: An `EpisodeSampler`.
        variants: List of integers; see `image_variants`.
        augment_support: Optional layer.
        augment_query: Optional layer.
    """

    mixing_depth = 0
    is_list = False

    def __init__(
        self,
        examples,
        sampler,
        variants=(0,),
        augment_support=None,
        augment_query=None,
    ):
        self.examples = examples
        self.sampler = sampler
        self.variants = list(variants)
        self.augment_support = augment_support
        self.augment_query = augment_query

    def make(self, first_episode, count):
        """Returns a meta-batch of `count` episodes, from a number on."""
        support, query = self.sampler.sample(first_episode, count)
        return self.assemble(support, query, first_episode)

    def assemble(self, support, query, first_episode):
        """Returns a meta-batch of what was drawn."""
        x = {
            episode.SUPPORT_X: self._inputs(
                support, self.augment_support, first_episode, _SUPPORT_STREAM
            ),
            episode.SUPPORT_Y: support.labels,
            episode.QUERY_X: self._inputs(
                query, self.augment_query, first_episode, _QUERY_STREAM
            ),
        }
        if support.weight is None:
            return x, query.labels
        x[episode.SUPPORT_WEIGHT] = support.weight
        return x, query.labels, query.weight

    def _inputs(self, drawn, layer, first_episode, stream):
        inputs = self.examples.gather(drawn.positions)
        if drawn.variants is not None:
            inputs = image_variants.turn(inputs, drawn.variants, self.variants)
        inputs = tf.nest.map_structure(labeled_examples.to_float, inputs)
        if layer is None:
            return inputs
        return augmentation.augment(
            layer, inputs, self.sampler.seed, first_episode, stream
        )

    @property
    def protocol(self):
        """What was drawn and how, as a dictionary of strings and integers."""
        sampler = self.sampler
        chosen, total = len(sampler.classes), sampler.total_classes
        classes = f"{total} classes"
        if chosen != total:
            # Two parts of one split may be of one size.
            labels = np.asarray(sampler.classes, "int64").tobytes()
            mark = hashlib.sha256(labels).hexdigest()[:6]
            classes = f"{chosen} of {total} classes (hash {mark})"
        if len(self.variants) > 1:
            classes += f" in {len(self.variants)} variants"
        protocol = {
            "source": self.examples.name,
            "split": classes,
            "ways": _described(sampler.ways),
            "shots": _described(sampler.shots),
            "queries": _described(sampler.queries),
        }
        if sampler.imbalanced:
            protocol["shots"] = "imbalanced"
            protocol["queries"] = f"up to {sampler.queries[1]}"
            protocol["max_support"] = sampler.max_support
        if sampler.within is not None:
            protocol["within"] = sampler.within
        if sampler.class_odds != "equal":
            protocol["class_odds"] = sampler.class_odds
        for name in ("augment_support", "augment_query"):
            layer = getattr(self, name)
            if layer is not None:
                protocol[name] = _name_of(layer)
        return {**protocol, "seed": sampler.seed}


def sample_episodes(
    examples,
    ways,
    shots,
    queries,
    meta_batch_size=32,
    episodes=None,
    classes=None,
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
    """Returns a data set of episodes; see `from_arrays()`."""
    check_sampling(
        ways,
        shots,
        queries,
        {
            "meta_batch_size": meta_batch_size,
            "episodes": episodes,
            "within": within,
            "class_odds": class_odds,
            "max_support": max_support,
            "quarter_turns": quarter_turns,
            "mirrors": mirrors,
            "augment_support": augment_support,
            "augment_query": augment_query,
            "first_episode": first_episode,
            "shard": shard,
            "seed": seed,
        },
    )
    augmentation.prepare("augment_support", augment_support, examples)
    augmentation.prepare("augment_query", augment_query, examples)
    if quarter_turns or mirrors:
        image_variants.check_images(examples.element_spec, quarter_turns)
    variants = image_variants.choose(quarter_turns, mirrors)
    sampler = EpisodeSampler(
        examples.labels,
        ways,
        shots,
        queries,
        classes=numbers_of(classes, examples),
        groups=examples.groups,
        within=within,
        class_odds=class_odds,
        max_support=max_support,
        variants=len(variants),
        seed=seed,
    )
    sampled = SampledEpisodes(
        examples, sampler, variants, augment_support, augment_query
    )
    return meta_batches.meta_batches(
        sampled, meta_batch_size, episodes, first_episode, shard
    )


def check_sampling(ways, shots, queries, sampling):
    """Checks how episodes are to be drawn, before anything is read.

    Args:
        ways: See `from_arrays()`.
        shots: See there.
        queries: See there.
        sampling: Dictionary of the other arguments of `sample_episodes()`.
    """
    parameters = inspect.signature(sample_episodes).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    unknown = sorted(set(sampling) - set(defaults))
    if unknown:
        advice = ""
        if "groups" in unknown:
            advice = " The groups come with this source."
        raise TypeError(
            "The other arguments must be those of "
            f"`keras_meta.episodes.from_arrays()`. Received: {unknown}."
            f"{advice} There are: {sorted(defaults)}."
        )
    given = {**defaults, **sampling}
    check_sizes(ways, shots, queries, given["max_support"])
    arguments.check_choice("within", given["within"], WITHIN)
    arguments.check_choice("class_odds", given["class_odds"], CLASS_ODDS)
    meta_batches.check_meta_batch_arguments(
        given["meta_batch_size"],
        given["episodes"],
        given["seed"],
        given["first_episode"],
        given["shard"],
    )
    for name in ("quarter_turns", "mirrors"):
        arguments.check_boolean(name, given[name])
    for name in ("augment_support", "augment_query"):
        augmentation.check_layer(name, given[name])


def numbers_of(classes, examples):
    """Returns the labels of classes that are given by number or by name."""
    if classes is None:
        return None
    if isinstance(classes, str) or not np.iterable(classes):
        raise TypeError(
            "`classes` must be a sequence of labels or names. Received: "
            f"classes={classes!r}."
        )
    classes = list(classes)
    if not any(isinstance(one, str) for one in classes):
        return classes
    names = _names_of(examples)
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise ValueError(
            "`classes` must be labels, or names of classes or groups. "
            f"Received: {unknown[:5]}. There are: {sorted(names)[:20]}"
            f"{' and more' if len(names) > 20 else ''}."
        )
    return sorted(set().union(*(names[name] for name in classes)))


def _names_of(examples):
    """Returns the labels that each name of a class or group stands for."""
    short, groups, full = (collections.defaultdict(set) for _ in range(3))
    for label, name in enumerate(examples.class_names or ()):
        short[name.split("/")[-1]].add(label)
        full[name].add(label)
    present = np.unique(examples.labels)
    for label, group in zip(present.tolist(), examples.groups or ()):
        groups[group].add(label)
    # The name of a folder alone will do where no other has it.
    short = {name: found for name, found in short.items() if len(found) == 1}
    return {**short, **groups, **full}


def _name_of(layer):
    """Returns a name that is the same on each run."""
    name = getattr(layer, "name", getattr(layer, "__name__", None))
    return name or type(layer).__name__


def _described(limits):
    if limits is None:
        return None
    low, high = limits
    return low if low == high else f"{low} to {high}"
