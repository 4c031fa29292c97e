import collections

import keras
import tensorflow as tf

from keras_meta import task_mapping
from keras_meta.gradients import dense_gradients
from keras_meta.rl.advantages import mean
from keras_meta.rl.fast_weights_policy import forward

# With as many actions of a task, and a thread for each operation, tasks run one
# by one, some at once: what is computed of so many stays in the cache then.
_MANY_ACTIONS = 500

# What has become of the rollouts before an inner step, or after the last. Of
# each action: the logarithm of how much more likely it is than when it was
# taken, how far the policy has gone there, how much better it was than
# expected, and 0 where it does not count; and what is due to all of them.
Stage = collections.namedtuple(
    "Stage", ["log_ratio", "divergence", "advantage", "weight", "credit"]
)


class OuterProblem:
    """What an outer step optimizes: the policies after adaptation.

    Args:
        agent: A `MAMLAgent`.
        adaptation: List of batches, by task, one for each inner step.
        query: The batch after the last step.
        start: Tuple of tensors `[tasks, ...]`, the weights with which the
            tasks began, for agents that do not train them.
    """

    def __init__(self, agent, adaptation, query, start=()):
        self._agent = agent
        # What is collected after one inner step is what the next adapts on.
        self._first_query = 1 if agent.every_step else len(adaptation)
        stages = [dict(batch) for batch in (*adaptation, query)]
        self._tasks = {"stages": stages, "start": start}
        actions = stages[-1]["weight"].shape[1] or 0
        one_by_one = (
            actions >= _MANY_ACTIONS and task_mapping.has_one_thread_each()
        )
        self._mapping = "sequential" if one_by_one else "vectorized"
        self._tasks["before"], chances = tf.nest.map_structure(
            tf.stop_gradient, self._map_tasks(self._before)
        )
        for batch, log_probability in zip(stages, chances):
            batch["log_probability"] = log_probability

    def _map_tasks(self, function):
        return task_mapping.map_tasks(function, self._tasks, self._mapping)

    @property
    def variables(self):
        return self._agent.outer_variables

    def values(self):
        """Returns the tensors of the variables."""
        return [tf.convert_to_tensor(v.value) for v in self.variables]

    def _before(self, task):
        """Returns what the networks said when they collected, and how likely
        they found what was done then."""
        outputs = self._outputs(task, self.values())
        chances = [
            self._agent.network.read(output).log_prob(batch["action"])
            for output, batch in zip(outputs, task["stages"])
        ]
        return outputs, chances

    def _outputs(self, task, values):
        """Returns what the networks say of what they have collected.

        First that before the first inner step, and then those after each.
        """
        agent = self._agent
        rule_variables = agent.update_rule.trainable_variables
        shared = values[: len(values) - len(rule_variables)]
        rule_values = values[len(shared) :]
        weights = agent.initial_weights(shared, task["start"])
        *adaptation, query = task["stages"]
        outputs = []
        rule_state = None
        # The rule reads these values instead of its variables.
        scope = keras.StatelessScope(
            state_mapping=zip(rule_variables, rule_values)
        )
        with scope:
            for step, batch in enumerate(adaptation):
                outputs.append(
                    forward(agent.network, weights, batch["observation"])
                )
                adapted = agent.descend(
                    weights, rule_state, batch, step, agent.first_order
                )
                weights = adapted.weights_per_step[-1]
                rule_state = adapted.rule_state
            outputs.append(
                forward(agent.network, weights, query["observation"])
            )
        return outputs

    def _measure(self, task, values):
        """Returns the loss of a task, and how far its policies have gone."""
        agent = self._agent
        stages = self._changes(task, values)
        queries = stages[self._first_query :]
        losses = [
            mean(
                agent.outer_update.loss(stage.log_ratio, stage.advantage),
                stage.weight,
            )
            for stage in queries
        ]
        divergences = [
            mean(stage.divergence, stage.weight) for stage in queries
        ]
        loss = tf.add_n(losses) / len(losses)
        loss += agent.sampling_gradient.loss(
            self._credited(stages), agent.outer_update
        )
        return loss, tf.add_n(divergences) / len(divergences)

    def _changes(self, task, values):
        """Returns what has become of the rollouts of all stages."""
        read = self._agent.network.read
        stages = []
        for batch, outputs, before in zip(
            task["stages"], self._outputs(task, values), task["before"]
        ):
            new, old = read(outputs), read(before)
            stages.append(
                Stage(
                    new.log_prob(batch["action"]) - batch["log_probability"],
                    old.kl_divergence(new),
                    batch["advantage"],
                    batch["weight"],
                    batch["credit"],
                )
            )
        return stages

    def _credited(self, stages):
        """Returns the stages of inner steps, credited with what follows."""
        first = self._first_query
        count = len(stages) - first
        credited = []
        for number, stage in enumerate(stages[:-1]):
            following = stages[max(number + 1, first) :]
            credit = tf.add_n([later.credit for later in following]) / count
            credited.append(stage._replace(credit=credit))
        return credited

    def loss_and_gradients(self, values):
        """Returns the mean loss of the tasks, and its gradients."""

        def learn(task):
            with tf.GradientTape() as tape:
                tape.watch(values)
                loss, _ = self._measure(task, values)
            return loss, dense_gradients(tape, loss, values)

        loss, gradients = self._map_tasks(learn)
        gradients = [tf.reduce_mean(part, axis=0) for part in gradients]
        return tf.reduce_mean(loss), gradients

    def loss_and_divergence(self, values):
        """Returns the mean loss and the mean divergence of the tasks."""
        loss, divergence = self._map_tasks(
            lambda task: self._measure(task, values)
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
                slopes = dense_gradients(inner_tape, divergence, values)
                slope = tf.add_n(
                    [
                        tf.reduce_sum(slope * part)
                        for slope, part in zip(slopes, vector)
                    ]
                )
            return dense_gradients(outer_tape, slope, values)

        products = self._map_tasks(multiply)
        return [tf.reduce_mean(part, axis=0) for part in products]
