import tensorflow as tf

from keras_meta.rl import export
from keras_meta.rl import rollouts
from keras_meta.rl.fast_weights_policy import distribution_by_task


def exported_functions(agent):
    """Returns what `export.write_saved_model()` writes of a `MAMLAgent`.

    Args:
        agent: A `MAMLAgent`.

    Returns:
        Dictionary from the names of signatures to tuples of a function and
        the dictionary of its arguments' specifications.
    """
    observation_spec = agent.time_step_spec.observation

    def begin():
        return (*agent.start(1), tf.constant(0))

    state = begin()

    def distribution(inputs):
        weights, _, _ = export.unnamed("state", state, inputs)
        observation = export.unnamed("observation", observation_spec, inputs)
        return distribution_by_task(agent.network, weights, observation)

    def start():
        return export.named("state", begin())

    def explore(**inputs):
        return {"action": distribution(inputs).sample()}

    def act(**inputs):
        return {"action": distribution(inputs).mode()}

    def adapt(**inputs):
        weights, rule_state, step = export.unnamed("state", state, inputs)
        experience = rollouts.from_parts(
            export.unnamed("observation", observation_spec, inputs),
            inputs["action"],
            inputs["reward"],
            inputs["last"],
        )
        weights, rule_state = agent.take_inner_step(
            weights, rule_state, experience, step
        )
        return export.named("state", (weights, rule_state, step + 1))

    states = export.named("state", export.of_tensors(state))
    observed = export.named(
        "observation", export.with_axes(observation_spec, None)
    )
    flags = tf.TensorSpec([None, None], tf.float32)
    seen = export.with_axes(observation_spec, None, None)
    collected = {
        **export.named("observation", seen),
        "action": export.with_axes(agent.action_spec, None, None),
        "reward": flags,
        "last": flags,
    }
    return {
        "start": (start, {}),
        "explore": (explore, {**states, **observed}),
        "act": (act, {**states, **observed}),
        "adapt": (adapt, {**states, **collected}),
    }
