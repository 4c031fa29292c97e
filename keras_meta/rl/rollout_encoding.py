"""What a short rollout tells of its task: an encoder, and pairs to train it."""

import keras
import tensorflow as tf
from tf_agents.policies import random_tf_policy
from tf_agents.trajectories import time_step as time_steps

from keras_meta import arguments
from keras_meta import pair
from keras_meta import ridge_regression
from keras_meta.rl import heads
from keras_meta.rl import rollouts
from keras_meta.rl import vectors
from keras_meta.rl.rows import choose_rows


@keras.saving.register_keras_serializable(package="keras_meta")
class FitOfSteps(keras.layers.Layer):
    """Fits what steps lead to by ridge regression on features of them.

    Args:
        strength: Float above 0, what large coefficients cost. Defaults to
            `1e-6`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, strength=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.strength = float(strength)

    def call(self, features, outcome, weight):
        """Returns the coefficients, flat.

        Args:
            features: Tensor `[rollouts, steps, features]`.
            outcome: Tensor `[rollouts, steps, outcomes]`.
            weight: Tensor `[rollouts, steps]`, 0 for what is no step.
        """
        # In double precision: squares are small beside the rest.
        parts = [
            tf.cast(part, "float64") for part in (features, outcome, weight)
        ]
        solution = ridge_regression.solve(*parts, self.strength)
        solution = tf.cast(solution, features.dtype)
        return keras.ops.reshape(
            solution, (-1, features.shape[-1] * outcome.shape[-1])
        )

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}


def random_rollouts(environment, tasks, steps):
    """Takes random steps in each task, and tells what they led to.

    Args:
        environment: A `keras_meta.rl.environments.TaskFamily`.
        tasks: Nested structure of tensors `[tasks, ...]`.
        steps: Integer, how many steps.

    Returns:
        Float tensor `[tasks, steps, numbers]`: the observation, the action
        (in units of its bounds, or one-hot), the reward, how the observation
        changed, and 1; all of them 0 where a rollout has ended and the next
        one only begins.
    """
    policy = random_tf_policy.RandomTFPolicy(
        environment.time_step_spec(), environment.action_spec()
    )
    experience, _ = rollouts.collect(
        environment, policy, tasks, steps=steps + 1
    )
    return described(experience, environment.action_spec())


def described(experience, action_spec):
    """Returns trajectories as numbers; see `random_rollouts()`.

    Args:
        experience: A `Trajectory` of tensors `[rows, steps + 1, ...]`.
        action_spec: The specification of the action.

    Returns:
        Float tensor `[rows, steps, numbers]`.
    """
    ended = tf.equal(experience.step_type[:, :-1], time_steps.StepType.LAST)
    happens = 1.0 - tf.cast(ended, tf.float32)[..., None]
    observation = vectors.of_steps(experience.observation)
    numbers = tf.concat(
        [
            observation[:, :-1],
            _action_numbers(experience.action, action_spec)[:, :-1],
            experience.reward[:, :-1, None],
            observation[:, 1:] - observation[:, :-1],
        ],
        axis=-1,
    )
    return tf.concat([numbers * happens, happens], axis=-1)


def _action_numbers(action, spec):
    if spec.dtype.is_integer:
        return tf.one_hot(action, heads.choices(spec))
    return vectors.of_steps(heads.in_units(action, spec))


def rollout_encoder(environment, steps=20, units=64, features=4, size=8):
    """Returns a Keras model from short rollouts to embeddings of their tasks.

    Learned features of what was done in which state are fitted to what came
    of it, the reward and the change of the observation, by ridge regression:
    so the embedding tells of the task, and not of what happened to be done.

    Args:
        environment: A `TFEnvironment` of TF-Agents.
        steps: Integer of 1 or more, the steps of a rollout. Defaults to `20`.
        units: Integer of 1 or more, the width of dense layers. Defaults to
            `64`.
        features: Integer of 1 or more, how many are learned for a fit. Defaults
            to `4`.
        size: Integer of 1 or more, that of an embedding. Defaults to `8`.

    Returns:
        A `keras.Model` from what `random_rollouts()` returns, `[rollouts,
        steps, numbers]`, to embeddings `[rollouts, size]`, for
        `keras_meta.SiameseNetwork`.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    siamese = keras_meta.SiameseNetwork(
        keras_meta.rl.rollout_encoder(environment)
    )
    siamese.compile("adam", loss=keras_meta.losses.ContrastiveLoss())
    pairs = keras_meta.rl.rollout_pairs(environment)
    siamese.fit(pairs, steps_per_epoch=2)
    ```
    """
    for name, value in (
        ("steps", steps),
        ("units", units),
        ("features", features),
        ("size", size),
    ):
        arguments.check_positive_integer(name, value)
    observations = sum(
        leaf.shape.num_elements()
        for leaf in tf.nest.flatten(environment.observation_spec())
    )
    spec = environment.action_spec()
    actions = (
        heads.choices(spec)
        if spec.dtype.is_integer
        else spec.shape.num_elements()
    )
    layers = keras.layers
    inputs = keras.Input((steps, 2 * observations + actions + 2))
    before = inputs[..., : observations + actions]
    reward = inputs[..., observations + actions : observations + actions + 1]
    change = inputs[..., -1 - observations : -1]
    weight = inputs[..., -1]
    after = inputs[..., :observations] + change

    def fit(known, outcome):
        """Fits the outcome to what is known, its squares, and features."""
        hidden = layers.Dense(units, "silu")(known)
        hidden = layers.Dense(units, "silu")(hidden)
        learned = layers.Dense(features)(hidden)
        parts = [weight[..., None], known, known**2, learned]
        return FitOfSteps()(layers.Concatenate()(parts), outcome, weight)

    seen = layers.Concatenate()(
        [
            fit(after, reward),
            fit(before, change),
            layers.GlobalAveragePooling1D()(inputs),
        ]
    )
    hidden = layers.Dense(2 * units, "silu")(seen)
    hidden = layers.Dense(2 * units, "silu")(hidden)
    joined = layers.Concatenate()([seen, hidden])
    return keras.Model(inputs, layers.Dense(size)(joined))


def rollout_pairs(
    environment, steps=20, batch_size=256, reach=1.0, split="train", seed=0
):
    """Returns a data set of pairs of random rollouts, of one task or of two.

    How much two tasks are alike falls from 1 to 0 while their distance, that
    of their numbers, grows to `reach`. Each pair is there twice: as one of a
    class, with that as its weight, and as one of two classes, with the rest.
    With `keras_meta.losses.ContrastiveLoss` embeddings then are as far apart
    as the tasks are, in units of the reach.

    Args:
        environment: A `keras_meta.rl.environments.TaskFamily`.
        steps: Integer of 1 or more, the steps of a rollout. Defaults to `20`.
        batch_size: Integer of 2 or more, the pairs of a batch, half of them
            each way. Defaults to `256`.
        reach: Float above 0, the distance from which on tasks are not alike.
            Defaults to `1.0`.
        split: `"train"` (the default), `"validation"` or `"test"`.
        seed: Integer from 0, to draw others.

    Returns:
        A `tf.data.Dataset` without end, of `(pairs, labels, weights)`, for
        the `fit()` of a `keras_meta.SiameseNetwork`.

    Raises:
        ValueError: Where an argument is not as described.
    """
    arguments.check_positive_integer("steps", steps)
    arguments.check_positive_integer("batch_size", batch_size)
    arguments.check_positive_number("reach", reach)
    if batch_size % 2:
        raise ValueError(
            "`batch_size` must be even. Received: batch_size="
            f"{batch_size}: each pair is there twice."
        )
    count = batch_size // 2

    def make(tasks):
        others = tf.nest.map_structure(lambda leaf: leaf[count:], tasks)
        tasks = tf.nest.map_structure(lambda leaf: leaf[:count], tasks)
        # A third of one task, so that chance in rollouts is told from tasks.
        same = tf.random.uniform([count]) < 1 / 3
        others = choose_rows(same, tasks, others)
        alike = tf.maximum(0.0, 1.0 - _distances(tasks, others) / reach)
        x = {
            key: tf.tile(random_rollouts(environment, of, steps), [2, 1, 1])
            for key, of in ((pair.FIRST, tasks), (pair.SECOND, others))
        }
        labels = tf.repeat([1.0, 0.0], count)
        return x, labels, tf.concat([alike, 1.0 - alike], axis=0)

    # AutoGraph would warn of what it meets in TF-Agents.
    make = tf.autograph.experimental.do_not_convert(make)
    return environment.tasks(2 * count, split, seed=seed).map(make).prefetch(2)


def _distances(tasks, others):
    squares = [
        tf.reduce_sum(
            tf.reshape(
                tf.cast(one, tf.float32) - tf.cast(other, tf.float32),
                [tf.shape(one)[0], one.shape[1:].num_elements()],
            )
            ** 2,
            axis=1,
        )
        for one, other in zip(tf.nest.flatten(tasks), tf.nest.flatten(others))
    ]
    return tf.sqrt(tf.add_n(squares))
