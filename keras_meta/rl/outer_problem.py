import keras
import tensorflow as tf

from keras_meta import inner_loop
from keras_meta.rl.advantages import mean
from keras_meta.rl.fast_weights_policy import forward


class OuterProblem:
    """What an outer step optimizes: the policies after adaptation.

    Args:
        agent: A `MAMLAgent`.
        adaptation: List of batches, by task, one for each inner step.
        query: The batch after the last step.
    """

    def __init__(self, agent, adaptation, query):
        self._agent = agent
        # What is collected after one inner step is what the next adapts on.
        queries = [*adaptation[1:], query] if agent.every_step else [query]
        self._tasks = {"adaptation": adaptation, "queries": queries}
        self._tasks["before"] = tf.nest.map_structure(
            tf.stop_gradient,
            tf.vectorized_map(
                lambda task: self._outputs(task, self.values()), self._tasks
            ),
        )

    @property
    def variables(self):
        return self._agent.outer_variables

    def values(self):
        """Returns the tensors of the variables."""
        return [tf.convert_to_tensor(v.value) for v in self.variables]

    def _outputs(self, task, values):
        """Returns what the adapted networks say of each query set."""
        agent = self._agent
        rule_variables = agent.update_rule.trainable_variables
        weights = values[: len(values) - len(rule_variables)]
        rule_values = values[len(weights) :]
        stages = []
        rule_state = None
        # The rule reads these values instead of its variables.
        scope = keras.StatelessScope(
            state_mapping=zip(rule_variables, rule_values)
        )
        with scope:
            for step, batch in enumerate(task["adaptation"]):
                adaptation = agent._descend(
                    weights, rule_state, batch, step, agent.first_order
                )
                weights = adaptation.weights_per_step[-1]
                rule_state = adaptation.rule_state
                stages.append(weights)
            stages = stages[-len(task["queries"]) :]
            return [
                forward(agent.network, weights, query["observation"])
                for weights, query in zip(stages, task["queries"])
            ]

    def _measure(self, task, values):
        """Returns the loss of a task, and how far its policies have gone."""
        read = self._agent.network.read
        losses, divergences = [], []
        for query, outputs, before in zip(
            task["queries"], self._outputs(task, values), task["before"]
        ):
            new, old = read(outputs), read(before)
            log_ratio = new.log_prob(query["action"]) - old.log_prob(
                query["action"]
            )
            loss = self._agent.outer_update.loss(log_ratio, query["advantage"])
            losses.append(mean(loss, query["weight"]))
            divergences.append(mean(old.kl_divergence(new), query["weight"]))
        return (
            tf.add_n(losses) / len(losses),
            tf.add_n(divergences) / len(losses),
        )

    def loss_and_gradients(self, values):
        """Returns the mean loss of the tasks, and its gradients."""

        def learn(task):
            with tf.GradientTape() as tape:
                tape.watch(values)
                loss, _ = self._measure(task, values)
            return loss, inner_loop.dense_gradients(tape, loss, values)

        loss, gradients = tf.vectorized_map(learn, self._tasks)
        gradients = [tf.reduce_mean(part, axis=0) for part in gradients]
        return tf.reduce_mean(loss), gradients

    def loss_and_divergence(self, values):
        """Returns the mean loss and the mean divergence of the tasks."""
        loss, divergence = tf.vectorized_map(
            lambda task: self._measure(task, values), self._tasks
        )
        return tf.reduce_mean(loss), tf.reduce_mean(divergence)

    def divergence_product(self, values, vector):
        """Multiplies the second derivatives of the divergence by a vector."""

        def multiply(task):
            with tf.GradientTape() as outer_tape:
                outer_tape.watch(values)
                with tf.GradientTape() as inner_tape:
                    inner_tape.watch(values)
                    _, divergence = self._measure(task, values)
                slopes = inner_loop.dense_gradients(
                    inner_tape, divergence, values
                )
                slope = tf.add_n(
                    [
                        tf.reduce_sum(slope * part)
                        for slope, part in zip(slopes, vector)
                    ]
                )
            return inner_loop.dense_gradients(outer_tape, slope, values)

        products = tf.vectorized_map(multiply, self._tasks)
        return [tf.reduce_mean(part, axis=0) for part in products]
