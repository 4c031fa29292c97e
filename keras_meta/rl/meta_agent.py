import collections

import keras
import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent

from keras_meta import arguments
from keras_meta.evaluation import mean_and_interval

# What an outer step is made of: the trajectories on which each task was adapted
# to, in their order, those after the adaptation, and the weights, by task, with
# which it began.
MetaExperience = collections.namedtuple(
    "MetaExperience", ["adaptation", "query", "start"], defaults=[()]
)


class ReturnCurve(
    collections.namedtuple(
        "ReturnCurve", ["rollouts", "means", "intervals", "values"]
    )
):
    """Returns on unseen tasks against the rollouts adapted on.

    Attributes:
        rollouts: List of integers, how many rollouts were adapted on.
        means: Array `[points]`, the mean returns over the tasks.
        intervals: Array `[points]`, half the widths of the 95 % confidence
            intervals of the means.
        values: Array `[tasks, points]`, the mean return in each task.
    """

    __slots__ = ()

    def __str__(self):
        lines = [
            f"return {mean:.2f} ± {interval:.2f} after {rollouts} rollouts"
            for rollouts, mean, interval in zip(
                self.rollouts, self.means, self.intervals
            )
        ]
        tasks = len(self.values)
        return "\n".join([*lines, f"(95 % intervals over {tasks} tasks)"])


class MetaAgent(tf_agent.TFAgent):
    """An agent of TF-Agents that learns to adapt.

    An outer step is `train(collect(environment, tasks))`: rollouts in a batch
    of tasks, with adaptation, and an update of what the tasks share. The same
    step is what `keras_meta.rl.AgentModel` takes in `fit()`.

    A subclass writes `collect()` and `_train()`, or `learn()` where it does
    both by turns; `returns()`, which measures adaptation in many tasks; and
    `adapt()`, which adapts to one environment.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        policy: The policy to use.
        collect_policy: The policy to train with.
        optimizer: A `keras.optimizers.Optimizer` for the outer steps, or
            `None` where `AgentModel.compile()` gives one.
        name: String.

    Example:

    ```python
    # Any meta-agent, `MAMLAgent` or `RL2Agent`, takes outer steps like this.
    agent.optimizer = keras.optimizers.Adam(1e-3)
    learn = tf.function(
        lambda tasks: agent.learn(environment, tasks), autograph=False
    )
    info = learn(environment.sample_tasks(5))
    ```
    """

    # The names of what an outer step logs, beside the loss.
    logged = ("return_before", "return_after")

    def __init__(
        self,
        time_step_spec,
        action_spec,
        policy,
        collect_policy,
        optimizer=None,
        name=None,
    ):
        tf.Module.__init__(self, name=name)
        super().__init__(
            time_step_spec,
            action_spec,
            policy,
            collect_policy,
            train_sequence_length=None,
            # Not the default, which all agents of a process would share.
            train_step_counter=tf.Variable(0, trainable=False, dtype=tf.int64),
        )
        # Keras 3 objects hide from Keras 2 in a tuple of their own; their
        # variables are held for checkpoints.
        self._optimizer = None
        self.optimizer = optimizer

    @property
    def optimizer(self):
        """The optimizer of the outer steps."""
        return self._optimizer and self._optimizer()

    @optimizer.setter
    def optimizer(self, optimizer):
        if optimizer is None:
            self._optimizer = None
            return
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                "`optimizer` must be a `keras.optimizers.Optimizer` of Keras "
                f"3. Received: optimizer={optimizer!r}."
            )
        if not optimizer.built:
            optimizer.build(self.outer_variables)
        # In a function, where neither Keras 2 nor TensorFlow looks.
        self._optimizer = lambda: optimizer
        self._optimizer_variables = [v.value for v in optimizer.variables]

    @property
    def outer_variables(self):
        """List of `keras.Variable`, what the outer steps train."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `outer_variables`."
        )

    def check_optimizer(self):
        """Raises where there is no optimizer for an outer step."""
        if self.optimizer is None:
            raise ValueError(
                "An outer step must have an optimizer. Received: "
                "optimizer=None. Give one to the agent, or to `compile()` of "
                "its `AgentModel`."
            )

    def prepare(self, environment):
        """Makes what depends on the environment, before the first step.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
        """

    def check_environment(self, environment):
        """Raises where an environment does not fit the agent.

        Args:
            environment: A `TFEnvironment` of TF-Agents.

        Raises:
            ValueError: Where it has other specifications.
        """
        pairs = (
            (environment.time_step_spec(), self.time_step_spec),
            (environment.action_spec(), self.action_spec),
        )
        for found, wanted in pairs:
            if _shapes(found) != _shapes(wanted):
                raise ValueError(
                    "The environment must have the specifications of the "
                    f"agent. Received: {_shapes(found)}, where the agent has "
                    f"{_shapes(wanted)}. Make the agent for this environment."
                )

    def collect(self, environment, tasks):
        """Collects the rollouts of an outer step, and adapts between them.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.

        Returns:
            What `train()` takes.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`collect(environment, tasks)`."
        )

    def train(self, experience, weights=None, **kwargs):
        info = super().train(experience, weights, **kwargs)
        # Weights that are not finite would be told of much later, by what
        # their actions break.
        loss = tf.debugging.check_numerics(
            info.loss,
            "The loss of an outer step must be finite. Received: NaN or Inf "
            f"in {type(self).__name__}. Take a lower learning rate, or limit "
            "gradients by `global_clipnorm=1.0` of the optimizer",
        )
        return info._replace(loss=loss)

    def learn(self, environment, tasks):
        """Takes one outer step.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.

        Returns:
            A TF-Agents `LossInfo`. Its `extra` is a dictionary of what is
            logged, by the names in `logged`.
        """
        return self.train(self.collect(environment, tasks))

    def returns(self, environment, tasks, rollouts=None):
        """Measures the returns while the agent adapts to each of many tasks.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.
            rollouts: Integer, on how many rollouts is adapted in each task;
                `None` (the default) means as in training.

        Returns:
            Float tensor `[tasks, points]`, the mean returns before, during
            and after the adaptation.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`returns(environment, tasks, rollouts)`."
        )

    def rollout_counts(self, environment, rollouts=None):
        """Returns how many rollouts each point of `returns()` has seen.

        Args:
            environment: As in `returns()`.
            rollouts: As in `returns()`.

        Returns:
            List of integers.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`rollout_counts(environment, rollouts)`."
        )

    def adapt(self, environment, rollouts=None, steps=None):
        """Adapts to one environment.

        Args:
            environment: Any `TFEnvironment` of TF-Agents with the agent's
                specifications. All its rows must have the same task.
            rollouts: Integer, on how many rollouts to adapt; `None` (the
                default) means as in training.
            steps: Integer, the longest a rollout may be. `None` (the
                default) means the `horizon` of the environment.

        Returns:
            A policy of TF-Agents.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement "
            "`adapt(environment, rollouts)`."
        )

    def evaluate(self, environment, tasks=100, rollouts=None, seed=0):
        """Measures how returns grow with the rollouts, on unseen tasks.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Integer, the number of test tasks; or the tasks, a nested
                structure of tensors `[tasks, ...]`. Defaults to `100`.
            rollouts: Integer, on how many rollouts is adapted in each task;
                `None` (the default) means as in training.
            seed: Integer from 0, to draw other test tasks.

        Returns:
            A `ReturnCurve`, with the attributes `rollouts`, `means`,
            `intervals` and `values`.

        Raises:
            ValueError: Where an argument is not as described.

        Example:

        ```python
        curve = agent.evaluate(environment, tasks=40)
        print(curve)
        ```
        """
        if isinstance(tasks, (int, np.integer)):
            arguments.check_positive_integer("tasks", tasks)
            tasks = environment.sample_tasks(int(tasks), "test", seed)
        measure = tf.function(
            lambda tasks: self.returns(environment, tasks, rollouts),
            autograph=False,
        )
        values = measure(tasks).numpy()
        columns = [mean_and_interval(column) for column in values.T]
        means, intervals = np.transpose(columns)
        return ReturnCurve(
            self.rollout_counts(environment, rollouts), means, intervals, values
        )


def _shapes(spec):
    return [
        (leaf.shape.as_list(), leaf.dtype.name)
        for leaf in tf.nest.flatten(spec)
    ]
