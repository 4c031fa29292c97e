import tensorflow as tf

from keras_meta.rl import advantages
from keras_meta.rl import rollouts

# How many deviations of its advantages the credit of a task may be. Where all
# rollouts of a task get the same there is nearly none to divide by.
_LARGEST_CREDIT = 10.0


def experience_batch(experience, count, discount, decay):
    """Returns what a policy learns from trajectories, by task.

    Args:
        experience: A `Trajectory` of tensors `[rows, steps, ...]`. Rows of one
            task stand together.
        count: Integer, the number of tasks.
        discount: Float from 0 to 1, for each step.
        decay: Float from 0 to 1, the decay of generalized advantages.

    Returns:
        Dictionary of tensors `[tasks, actions, ...]`: `"observation"`,
        `"action"`, `"advantage"` and `"weight"`, 0 for what does not count;
        and `"credit"`, `[tasks]`: how much more a rollout of the task got
        than those of the other tasks, for each action of a rollout, in units
        of the advantages.
    """
    weight = rollouts.first_rollout(experience)
    returns = advantages.discounted_returns(experience, discount)
    advantage = _advantages(experience, returns, weight, count, discount, decay)

    def by_task(leaf):
        return tf.reshape(leaf, [count, -1, *leaf.shape[2:]])

    batch = {
        "observation": experience.observation,
        "action": experience.action,
        "advantage": advantages.normalized(advantage, weight, count),
        "weight": weight,
    }
    batch = tf.nest.map_structure(by_task, batch)
    _, deviation = advantages.moments(advantage, weight, count)
    batch["credit"] = _credit(returns, weight, deviation[:, 0], count)
    return tf.nest.map_structure(tf.stop_gradient, batch)


def _advantages(experience, returns, weight, count, discount, decay):
    values = advantages.linear_baseline(
        experience.observation, returns, weight, count
    )
    if decay == 1:
        return returns - values
    return advantages.generalized_advantages(
        experience, values, tf.zeros_like(values[:, -1]), discount, decay
    )


def _credit(returns, weight, deviation, count):
    own = tf.reduce_mean(tf.reshape(returns[:, 0], [count, -1]), axis=1)
    # The baseline is what the other tasks got: it does not depend on what was
    # drawn in this one, so that it changes no gradient in the mean.
    others = (tf.reduce_sum(own) - own) / max(count - 1, 1)
    credit = tf.clip_by_value(
        (own - others) / (deviation + 1e-8), -_LARGEST_CREDIT, _LARGEST_CREDIT
    )
    actions = tf.reduce_sum(tf.reshape(weight, [count, -1]), axis=1)
    rollouts_each = tf.cast(tf.shape(weight)[0] // count, weight.dtype)
    return credit * rollouts_each / actions
