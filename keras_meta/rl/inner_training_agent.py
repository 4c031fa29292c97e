import collections

import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl import rollouts as rollouts_module
from keras_meta.rl.environments.task_family import rows_of
from keras_meta.rl.graph_loop import repeat
from keras_meta.rl.inner_training import InnerTraining
from keras_meta.rl.iterated_agent import IteratedAgent

# What training in each of many tasks has led to: the mean of the last losses;
# the returns before and after each iteration, `[tasks, iterations + 1]`; and
# where the `values()` of the agent have gone, a list of tensors `[tasks, ...]`.
TaskTrainings = collections.namedtuple(
    "TaskTrainings", ["loss", "returns", "values"]
)


class InnerTrainingAgent(IteratedAgent):
    """An agent of TF-Agents that adapts by training on; the base of some.

    It holds two agents that `make_agent` has made: one with the weights that
    all tasks share, and one that is trained in one task after the other, each
    time from these weights and with all else as it was built.

    A subclass writes `collect()` and `_train()`.

    Args:
        make_agent: A function without arguments that returns an agent of
            TF-Agents, each time one with networks and optimizers of its own.
        optimizer: A `keras.optimizers.Optimizer` for the outer steps, or
            `None`.
        rollouts: Integer of 1 or more, the rollouts of an inner iteration.
        inner_iterations: Integer of 1 or more, how often rollouts are
            collected in a task, and trained on.
        gradient_steps: Integer of 1 or more, for agents off policy: the
            minibatches of an inner iteration.
        minibatch_size: Integer of 1 or more, the size of these.
        name: String.

    Raises:
        ValueError: Where an argument is not as described.
        TypeError: Where `make_agent` makes something else.
    """

    def __init__(
        self,
        make_agent,
        optimizer=None,
        rollouts=10,
        inner_iterations=5,
        gradient_steps=50,
        minibatch_size=64,
        name=None,
    ):
        arguments.check_positive_integer("rollouts", rollouts)
        arguments.check_positive_integer("inner_iterations", inner_iterations)
        arguments.check_positive_integer("gradient_steps", gradient_steps)
        arguments.check_positive_integer("minibatch_size", minibatch_size)
        if not callable(make_agent):
            raise TypeError(
                "`make_agent` must be a function without arguments that "
                f"returns an agent of TF-Agents. Received: make_agent="
                f"{make_agent!r}. Write `lambda: keras_meta.rl.agents.ppo("
                "environment)`, for example."
            )
        self.rollouts = int(rollouts)
        self.inner_iterations = int(inner_iterations)

        def training():
            return InnerTraining(make_agent(), gradient_steps, minibatch_size)

        shared, inner = training(), training()
        own, others = [
            {v.ref() for v in [*part.weights, *part.optimizer_variables]}
            for part in (shared, inner)
        ]
        if own & others:
            raise ValueError(
                "Each call of `make_agent` must make new networks and "
                "optimizers. Received: a function whose agents share some. "
                "Make all of them, and the models, within it."
            )
        # In functions: what belongs to a task is in no checkpoint.
        self._make_training = training
        self._shared = lambda: shared
        self._inner = lambda: inner
        self._agent = shared.agent
        super().__init__(
            shared.agent.time_step_spec,
            shared.agent.action_spec,
            shared.agent.policy,
            shared.agent.collect_policy,
            optimizer,
            name,
        )

    @property
    def agent(self):
        """The agent of TF-Agents that has the weights which tasks share."""
        return self._agent

    @property
    def outer_variables(self):
        return self._shared().weights

    @property
    def models(self):
        """The Keras models that hold what is learned."""
        return self._shared().models

    def returns(self, environment, tasks, rollouts=None):
        iterations = self.iterations_for(rollouts)
        return self.train_in_tasks(environment, tasks, iterations).returns

    def adapt(self, environment, rollouts=None, steps=None):
        iterations = self.iterations_for(rollouts)
        self.check_environment(environment)
        training = self._make_training()
        training.begin(self._start_in(environment))
        if steps is None:
            steps = getattr(environment, "horizon", None)
        collect = rollouts_module.collector(
            environment,
            training.agent.collect_policy,
            self.rollouts,
            # One more, as in `collect_rows()`.
            steps=steps and steps + 1,
        )
        train = tf.function(training.step, autograph=False)
        memory = training.memory(iterations, self.rollouts, steps + 1)
        for number in range(iterations):
            memory, _ = train(memory, tf.constant(number), collect()[0])
        return training.agent.policy

    def _start_in(self, environment):
        """Returns the `values()` to start from in one environment; hook."""
        del environment
        return self._shared().values()

    def train_in_tasks(
        self, environment, tasks, iterations, every=True, starts=None
    ):
        """Trains in one task after the other, each time from the start.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.
            iterations: Integer, the inner iterations.
            every: Boolean, whether to measure the returns after every
                iteration, or only before the first and after the last.
            starts: Optional list of tensors `[tasks, ...]`, the `values()`
                to start from in each task. `None` (the default) means those
                that all tasks share.

        Returns:
            A `TaskTrainings`.
        """
        self.check_environment(environment)
        count = tf.shape(tf.nest.flatten(tasks)[0])[0]
        known_count = tf.nest.flatten(tasks)[0].shape[0]
        shared = self._shared().values()
        inner = self._inner()

        def train(number, losses, returns, values):
            task = tf.nest.map_structure(lambda leaf: leaf[number], tasks)
            start = shared
            if starts is not None:
                start = [value[number] for value in starts]
            inner.begin(start)
            loss, measured = inner.run(
                environment,
                rows_of(environment, task, self.rollouts),
                self.rollouts,
                iterations,
                every,
            )
            values = [
                array.write(number, value)
                for array, value in zip(values, inner.values())
            ]
            returns = returns.write(number, measured)
            return losses + loss, returns, values

        returns = tf.TensorArray(
            tf.float32, count, element_shape=[iterations + 1]
        )
        values = [
            tf.TensorArray(value.dtype, count, element_shape=value.shape)
            for value in shared
        ]
        losses, returns, values = repeat(count, train, 0.0, returns, values)

        def stacked(array):
            stack = array.stack()
            return tf.ensure_shape(stack, [known_count, *stack.shape[1:]])

        return TaskTrainings(
            losses / tf.cast(count, tf.float32),
            stacked(returns),
            [stacked(array) for array in values],
        )


def refuse_optimizer(agent, optimizer):
    """Raises where an agent without outer steps is given an optimizer."""
    if optimizer is not None:
        raise ValueError(
            f"`{type(agent).__name__}` trains with the optimizers of its "
            f"agents. Received: optimizer={optimizer!r}. Give it to the agent "
            "that `make_agent` makes, and none to `compile()`."
        )
