"""The lives of many agents, side by side, by pure functions of tensors."""

import collections

import tensorflow as tf

from keras_meta import inner_loop
from keras_meta.rl.fresh_weights import fresh_weights
from keras_meta.rl.graph_loop import repeat
from keras_meta.rl.rows import choose_rows

# One agent while it learns, or many, with an axis of agents in front: its
# weights and those of its targets, what the rules of its steps remember, how
# many steps these were, what it has seen, and in how many iterations.
Life = collections.namedtuple(
    "Life",
    [
        "actor",
        "critic",
        "target_actor",
        "target_critic",
        "actor_rule_state",
        "critic_rule_state",
        "steps",
        "memory",
        "age",
    ],
)

# What is remembered of a step.
Seen = collections.namedtuple(
    "Seen", ["observation", "action", "reward", "discount", "step_type"]
)


def begin(actor_critic, count, slots, steps):
    """Returns new lives, with newly drawn weights.

    Args:
        actor_critic: A `keras_meta.rl.actor_critic.ActorCritic`.
        count: Integer, how many.
        slots: Integer, how many rollouts each will remember.
        steps: Integer, the steps of a rollout.

    Returns:
        A `Life` of tensors `[count, ...]`.
    """

    def fresh(network):
        return fresh_weights(inner_loop.network_weights(network.model), count)

    def empty(spec):
        return tf.zeros([count, slots, steps, *spec.shape], spec.dtype)

    actor, critic = fresh(actor_critic.actor), fresh(actor_critic.critic)
    number, whole_number = tf.TensorSpec([]), tf.TensorSpec([], tf.int32)
    seen = Seen(
        *actor_critic.critic.input_tensor_spec, number, number, whole_number
    )
    return Life(
        actor,
        critic,
        actor,
        critic,
        actor_critic.actor_rule.initial_state(actor),
        actor_critic.critic_rule.initial_state(critic),
        tf.zeros([count], tf.int32),
        tf.nest.map_structure(empty, seen),
        tf.zeros([count], tf.int32),
    )


def grow(actor_critic, lives, experience, settings, learn=None):
    """Lets all live on for an iteration: remember, and train.

    Args:
        actor_critic: A `keras_meta.rl.actor_critic.ActorCritic`.
        lives: A `Life` of tensors `[lives, ...]`.
        experience: A `Trajectory` of tensors `[lives * rollouts, steps,
            ...]`; the rows of one life stand together.
        settings: A `Settings`.
        learn: Optional function that gets the gradients of the objective, a
            list of tensors, after each gradient step. `None` (the default)
            means that the objective does not learn.

    Returns:
        A tuple: the `Life`, and the mean loss of the objective.
    """
    lives = _remember(actor_critic, lives, experience)
    rollouts = experience.reward.shape[0] // lives.age.shape[0]
    memory = lives.memory

    def step(number, lives, total):
        del number
        windows = _draw(memory, lives.age * rollouts, settings)
        lives, loss, gradients = tf.vectorized_map(
            lambda part: actor_critic.step(*part, learn is not None),
            (lives, windows),
        )
        if learn is not None:
            learn([tf.reduce_mean(part, axis=0) for part in gradients])
        return lives, total + tf.reduce_mean(loss)

    # The memories do not change in the loop.
    lives, total = repeat(
        settings.gradient_steps, step, lives._replace(memory=()), 0.0
    )
    return lives._replace(memory=memory), total / settings.gradient_steps


# How many steps an iteration has, on how many windows of what length.
Settings = collections.namedtuple(
    "Settings", ["gradient_steps", "windows", "length"]
)


def renewed(actor_critic, lives, over):
    """Begins new lives in the places of those that are over.

    Args:
        actor_critic: A `keras_meta.rl.actor_critic.ActorCritic`.
        lives: A `Life` of tensors `[lives, ...]`.
        over: Bool tensor `[lives]`.

    Returns:
        A `Life`.
    """
    count, slots, steps = lives.memory.reward.shape
    new = begin(actor_critic, count, slots, steps)
    # At age 0 nothing of a memory is drawn: it need not be emptied.
    memory = lives.memory
    lives = choose_rows(
        over, new._replace(memory=()), lives._replace(memory=())
    )
    return lives._replace(memory=memory)


def _remember(actor_critic, lives, experience):
    count = lives.age.shape[0]
    seen = Seen(
        experience.observation,
        actor_critic.in_units(experience.action),
        experience.reward,
        experience.discount,
        experience.step_type,
    )
    seen = tf.nest.map_structure(
        lambda leaf: tf.reshape(leaf, [count, -1, *leaf.shape[1:]]), seen
    )
    rollouts = seen.reward.shape[1]
    slots = lives.age[:, None] * rollouts + tf.range(rollouts)
    numbers = tf.repeat(tf.range(count)[:, None], rollouts, axis=1)
    index = tf.stack([numbers, slots], axis=-1)
    memory = tf.nest.map_structure(
        lambda kept, leaf: tf.tensor_scatter_nd_update(kept, index, leaf),
        lives.memory,
        seen,
    )
    return lives._replace(memory=memory, age=lives.age + 1)


def _draw(memory, filled, settings):
    """Draws windows, `[lives, windows, length + 1, ...]`."""
    count, _, steps = memory.reward.shape
    shape = [count, settings.windows]
    filled = tf.cast(filled[:, None], tf.float32)
    slot = tf.cast(tf.random.uniform(shape) * filled, tf.int32)
    first = tf.random.uniform(shape, 0, steps - settings.length, tf.int32)
    step = first[..., None] + tf.range(settings.length + 1)
    slot = tf.broadcast_to(slot[..., None], step.shape)
    index = tf.stack([slot, step], axis=-1)
    return tf.nest.map_structure(
        lambda leaf: tf.gather_nd(leaf, index, batch_dims=1), memory
    )
