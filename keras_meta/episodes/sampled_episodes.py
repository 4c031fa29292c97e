"""Episodes drawn from labeled examples, wherever those come from."""

import collections

import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.episodes import augmentation
from keras_meta.episodes import image_variants
from keras_meta.episodes import labeled_examples
from keras_meta.episodes import meta_batches
from keras_meta.episodes.episode_sampler import EpisodeSampler

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
            classes = f"{chosen} of {total} classes"
        if len(self.variants) > 1:
            classes += f" in {len(self.variants)} variants"
        protocol = {
            "source": self.examples.name,
            "split": classes,
            "ways": _described(sampler.ways),
            "shots": _described(sampler.shots) or "imbalanced",
            "queries": _described(sampler.queries),
        }
        if sampler.within is not None:
            protocol["within"] = sampler.within
        if sampler.class_odds != "equal":
            protocol["class_odds"] = sampler.class_odds
        for name in ("augment_support", "augment_query"):
            layer = getattr(self, name)
            if layer is not None:
                protocol[name] = getattr(layer, "name", repr(layer))
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
    meta_batches.check_meta_batch_arguments(
        meta_batch_size, episodes, seed, first_episode, shard
    )
    arguments.check_boolean("quarter_turns", quarter_turns)
    arguments.check_boolean("mirrors", mirrors)
    augmentation.check_layer("augment_support", augment_support)
    augmentation.check_layer("augment_query", augment_query)
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


def numbers_of(classes, examples):
    """Returns the labels of classes that are given by number or by name."""
    if classes is None:
        return None
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


def _described(limits):
    if limits is None:
        return None
    low, high = limits
    return low if low == high else f"{low} to {high}"
