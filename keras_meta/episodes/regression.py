import math
import numbers

import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.episodes import meta_batches
from keras_meta.episodes import random_streams


def sinusoids(
    shots=10,
    queries=10,
    meta_batch_size=25,
    episodes=None,
    amplitude=(0.1, 5.0),
    phase=(0.0, math.pi),
    x_range=(-5.0, 5.0),
    frequency=(1.0, 1.0),
    seed=0,
):
    """Makes the sinusoid regression episodes of the MAML paper.

    Each task is a wave `y = amplitude * sin(frequency * x - phase)`, its
    parameters drawn uniformly; support and query points are drawn uniformly
    from `x_range`.

    Args:
        shots: Integer, the support points of a task. Defaults to `10`.
        queries: Integer, the query points of a task. Defaults to `10`.
        meta_batch_size: Integer, the tasks of a meta-batch. Defaults to
            `25`.
        episodes: Integer, the number of episodes: a fixed list, for
            evaluation. `None` (the default) means without end.
        amplitude: Tuple of floats, the smallest and largest amplitude.
            Defaults to `(0.1, 5.0)`.
        phase: Tuple of floats, the smallest and largest phase, in radians.
            Defaults to `(0, pi)`.
        x_range: Tuple of floats, where points are drawn. Defaults to
            `(-5.0, 5.0)`.
        frequency: Tuple of floats, the lowest and highest frequency, in
            radians per unit of x. Defaults to `(1.0, 1.0)`; the Meta-SGD
            paper has `(0.8, 1.2)`.
        seed: Integer. Use one seed for training and another for evaluation.
            Defaults to `0`.

    Returns:
        A `tf.data.Dataset` of `(x, y)`, where `x` is a dictionary of
        `support_x` and `support_y` `[tasks, shots, 1]` and `query_x`
        `[tasks, queries, 1]`, and `y` `[tasks, queries, 1]`. All float32.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    episodes = keras_meta.episodes.sinusoids(shots=10, queries=10)
    ```

    Reference:
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
    """
    _check_range("amplitude", amplitude)
    _check_range("phase", phase)
    _check_range("x_range", x_range)
    _check_range("frequency", frequency)
    # What is the same for all is not drawn, and leaves the others as they are.
    low, high = frequency
    parameters = 2 if low == high else 3

    def make_wave(parameters):
        height = _scale(parameters[:, 0], amplitude)
        shift = _scale(parameters[:, 1], phase)
        speed = low
        if low != high:
            speed = _scale(parameters[:, 2], frequency)
        return lambda x: height * tf.sin(speed * x - shift), x_range

    return _regression(
        "sinusoids",
        make_wave,
        parameters,
        shots,
        queries,
        meta_batch_size,
        episodes,
        seed,
    )


def harmonics(
    shots=10,
    queries=10,
    meta_batch_size=25,
    episodes=None,
    frequency=(5.0, 7.0),
    center=(-4.0, 4.0),
    seed=0,
):
    """Makes regression episodes of two waves, one of twice the frequency.

    Each task is `y = a * sin(f * x + p) + b * sin(2 * f * x + q)`, with
    normally distributed heights a and b, uniform phases p and q, and a
    frequency f. Its points lie within 2 of a center of its own, so that the
    tasks differ in where they are seen as well. Harder than sinusoids.

    Args:
        shots: Integer, the support points of a task. Defaults to `10`.
        queries: Integer, the query points of a task. Defaults to `10`.
        meta_batch_size: Integer, the tasks of a meta-batch. Defaults to
            `25`.
        episodes: Integer, the number of episodes: a fixed list, for
            evaluation. `None` (the default) means without end.
        frequency: Tuple of floats, the smallest and largest f, in radians
            per unit of x. Defaults to `(5.0, 7.0)`.
        center: Tuple of floats, the range of the centers. Defaults to
            `(-4.0, 4.0)`.
        seed: Integer. Use one seed for training and another for evaluation.
            Defaults to `0`.

    Returns:
        A `tf.data.Dataset` as that of `keras_meta.episodes.sinusoids()`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    episodes = keras_meta.episodes.harmonics(shots=20, queries=20)
    ```

    Reference:
        - [Lacoste et al., 2018](https://arxiv.org/abs/1806.07528), whose
          points are normally distributed around the center, with noise.
    """
    _check_range("frequency", frequency)
    _check_range("center", center)

    def make_wave(parameters):
        rate = _scale(parameters[:, 0], frequency)
        middle = _scale(parameters[:, 1], center)
        phases = _scale(parameters[:, 2:4, 0], (0.0, 2.0 * math.pi))
        # The inverse of the normal distribution; the ends are infinite.
        heights = tf.math.ndtri(_scale(parameters[:, 4:6, 0], (1e-6, 1 - 1e-6)))

        def wave(x):
            low = heights[:, :1] * tf.sin(rate * x + phases[:, :1])
            high = heights[:, 1:] * tf.sin(2 * rate * x + phases[:, 1:])
            return low + high

        return wave, (middle - 2.0, middle + 2.0)

    return _regression(
        "harmonics",
        make_wave,
        6,
        shots,
        queries,
        meta_batch_size,
        episodes,
        seed,
    )


def _regression(
    name,
    make_wave,
    parameters,
    shots,
    queries,
    meta_batch_size,
    episodes,
    seed,
):
    """Makes a data set of the points of waves.

    `make_wave` takes uniform numbers `[tasks, parameters, 1]` and returns a
    function of x `[tasks, points]` and the range of x.
    """
    arguments.check_positive_integer("shots", shots)
    arguments.check_positive_integer("queries", queries)
    meta_batches.check_meta_batch_arguments(meta_batch_size, episodes, seed)

    def make(first_episode, count):
        numbers = random_streams.uniform(
            seed, first_episode, count, parameters + shots + queries
        )
        wave, x_range = make_wave(numbers[:, :parameters, None])
        x = _scale(numbers[:, parameters:], x_range)
        points, values = x[..., None], wave(x)[..., None]
        inputs = {
            episode.SUPPORT_X: points[:, :shots],
            episode.SUPPORT_Y: values[:, :shots],
            episode.QUERY_X: points[:, shots:],
        }
        return inputs, values[:, shots:]

    protocol = {"source": name, "points": shots, "query points": queries}
    recipe = meta_batches.Recipe(make, {**protocol, "seed": int(seed)})
    return meta_batches.meta_batches(recipe, meta_batch_size, episodes)


def _scale(numbers, limits):
    low, high = limits
    return low + numbers * (high - low)


def _check_range(name, limits):
    is_pair = (
        isinstance(limits, (tuple, list))
        and len(limits) == 2
        and all(isinstance(limit, numbers.Real) for limit in limits)
        and all(math.isfinite(limit) for limit in limits)
    )
    if not is_pair or limits[0] > limits[1]:
        raise ValueError(
            f"`{name}` must be a pair of finite numbers, the smaller first. "
            f"Received: {name}={limits!r}."
        )
