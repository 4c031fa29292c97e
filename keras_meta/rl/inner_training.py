"""The training of an agent of TF-Agents in tasks, wholly in one graph."""

import keras
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.networks import network
from tf_agents.specs import tensor_spec

from keras_meta.rl import replay_windows
from keras_meta.rl import rollouts
from keras_meta.rl.graph_loop import repeat


class InnerTraining:
    """An agent of TF-Agents, and how it is trained on rollouts in a task.

    Agents on policy (`train_sequence_length` is `None`) are trained on the
    rollouts of each iteration as they are. Those off policy are trained on
    minibatches of short windows, from all iterations so far.

    Args:
        agent: An agent of TF-Agents.
        gradient_steps: Integer of 1 or more, the minibatches of an iteration.
        minibatch_size: Integer of 1 or more, the windows of a minibatch.

    Raises:
        TypeError: Where the agent or an optimizer of it is something else.
        ValueError: Where the agent has no weights.
    """

    def __init__(self, agent, gradient_steps, minibatch_size):
        if not isinstance(agent, tf_agent.TFAgent):
            raise TypeError(
                "`make_agent` must be a function without arguments that "
                "returns an agent of TF-Agents. Received: a function that "
                f"returns {agent!r}. Write, for example, `lambda: "
                "keras_meta.rl.agents.ppo(environment)`."
            )
        self.agent = agent
        self.gradient_steps = gradient_steps
        self.minibatch_size = minibatch_size
        trained = _without_targets(agent, agent.trainable_variables)
        of_networks = {
            variable.ref()
            for part in agent.submodules
            if isinstance(part, network.Network)
            for variable in part.variables
        }
        self.weights = [v for v in trained if v.ref() in of_networks]
        if not self.weights:
            raise ValueError(
                "The networks of an agent must have weights. Received: "
                f"{agent!r}, which has none to train. Take the networks of "
                "`keras_meta.rl`: TF-Agents sees nothing in Keras 3 models "
                "that are put into a network of its own."
            )
        self.optimizer_variables = _built_optimizers(agent, trained)
        # Some policies make the variables of their noise at the first use.
        agent.collect_policy.action(
            tensor_spec.zero_spec_nest(agent.time_step_spec, [1]),
            agent.collect_policy.get_initial_state(1),
        )
        agent.initialize()
        weights = {variable.ref() for variable in self.weights}
        rest = [v for v in agent.variables if v.ref() not in weights]
        # Statistics of layers, such as normalization, which tasks share.
        self._statistics = [
            variable
            for variable in _without_targets(agent, rest)
            if variable.ref() in of_networks
        ]
        self._others = [*rest, *self.optimizer_variables]
        self._initial = [tf.identity(variable) for variable in self._others]

    def values(self):
        """Returns the values of all weights of the networks, as tensors."""
        return [tf.identity(v) for v in [*self.weights, *self._statistics]]

    @property
    def models(self):
        """The Keras models that hold the weights.

        Raises:
            TypeError: Where a network is of Keras 2.
        """
        weights = {variable.ref() for variable in self.weights}
        found = []
        for part in self.agent.submodules:
            if not isinstance(part, network.Network):
                continue
            if weights.isdisjoint(v.ref() for v in part.trainable_weights):
                continue
            if not hasattr(part, "models"):
                raise TypeError(
                    "What Keras shall save must be of Keras 3. Received: the "
                    f"network {part!r}. Take the networks of `keras_meta.rl`; "
                    "or train by `learn()`, without an `AgentModel`, and save "
                    "with `common.Checkpointer`."
                )
            found.extend(part.models)
        return found

    def begin(self, values):
        """Begins anew: with these weights, and all else as it was built.

        Args:
            values: List of tensors, the `values()` of an agent like this.
        """
        for variable, value in zip(self._others, self._initial):
            variable.assign(value)
        for variable, value in zip([*self.weights, *self._statistics], values):
            variable.assign(value)
        # Target networks become like the networks.
        self.agent.initialize()

    def memory(self, iterations, rows, steps):
        """Returns what `step()` keeps rollouts in: nothing on policy.

        Args:
            iterations: Integer, how many steps there will be.
            rows: Integer, the rollouts of each.
            steps: Integer, their length.

        Returns:
            A `Trajectory` of tensors `[iterations, rows, steps, ...]`.
        """
        length = self.agent.train_sequence_length
        if length is None:
            return ()
        if steps < length:
            raise ValueError(
                "A rollout must be as long as what the agent is trained on. "
                f"Received: rollouts of {steps - 1} steps, and an agent that "
                f"needs {length - 1}. Raise the horizon."
            )
        return tf.nest.map_structure(
            lambda spec: tf.zeros(
                [iterations, rows, steps, *spec.shape], spec.dtype
            ),
            self.agent.collect_data_spec,
        )

    def step(self, memory, number, experience, gradient_steps=None):
        """Trains on what was collected in one iteration.

        Args:
            memory: What `memory()` or the last step returned.
            number: Integer tensor, the number of the iteration, from 0.
            experience: A `Trajectory` of tensors `[rows, steps, ...]`.
            gradient_steps: Integer, or `None` for that of the constructor.

        Returns:
            A tuple: the memory, and the last loss.
        """
        agent = self.agent
        if agent.train_sequence_length is None:
            experience = agent.preprocess_sequence(experience)
            return memory, tf.reduce_mean(agent.train(experience).loss)
        memory = tf.nest.map_structure(
            lambda kept, leaf: tf.tensor_scatter_nd_update(
                kept, [[number]], leaf[None]
            ),
            memory,
            experience,
        )
        length = agent.train_sequence_length
        starts = replay_windows.starts(memory, number + 1, length)

        def descend(done, loss):
            del done, loss
            chosen = tf.random.uniform(
                [self.minibatch_size], 0, tf.shape(starts)[0], tf.int32
            )
            minibatch = replay_windows.gather(
                memory, tf.gather(starts, chosen), length
            )
            return (tf.reduce_mean(agent.train(minibatch).loss),)

        if gradient_steps is None:
            gradient_steps = self.gradient_steps
        (loss,) = repeat(gradient_steps, descend, 0.0)
        return memory, loss

    def run(self, environment, rows, count, iterations, every=True):
        """Collects rollouts and trains on them by turns, in one graph.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            rows: Nested structure of tensors `[rows, ...]`, their tasks.
            count: Integer, how many rows these are.
            iterations: Integer, how often.
            every: Boolean, whether to measure after every iteration, or only
                before the first and after the last.

        Returns:
            A tuple: the last loss, and the mean returns of the agent's
            `policy`, `[iterations + 1]`; zeros where it was not measured.
        """

        def measured(returns, number):
            experience = collect_rows(environment, self.agent.policy, rows)
            gained = tf.reduce_mean(rollouts.first_returns(experience))
            return tf.tensor_scatter_nd_update(returns, [[number]], [gained])

        def iterate(number, memory, loss, returns):
            del loss
            experience = collect_rows(
                environment, self.agent.collect_policy, rows
            )
            memory, loss = self.step(memory, number, experience)
            if every:
                returns = measured(returns, number + 1)
            return memory, loss, returns

        memory = self.memory(iterations, count, environment.horizon + 1)
        returns = measured(tf.zeros([iterations + 1]), 0)
        _, loss, returns = repeat(iterations, iterate, memory, 0.0, returns)
        return loss, returns if every else measured(returns, iterations)


def collect_rows(environment, policy, rows):
    """Collects a rollout in each row, and one step after it.

    Agents of TF-Agents see by the step after it how a rollout has ended: what
    they learn from is two steps that follow each other.

    Args:
        environment: A `keras_meta.rl.environments.TaskFamily`.
        policy: A `tf_agents` policy.
        rows: Nested structure of tensors `[rows, ...]`, their tasks.

    Returns:
        A `Trajectory` of tensors `[rows, horizon + 1, ...]`.
    """
    return rollouts.collect(
        environment, policy, rows, steps=environment.horizon + 1
    )[0]


def _without_targets(agent, variables):
    """Returns the variables that are not those of target networks."""
    targets = {
        variable.ref()
        for name, part in vars(agent).items()
        if name.startswith("_target") and isinstance(part, network.Network)
        for variable in part.variables
    }
    return [v for v in variables if v.ref() not in targets]


def _built_optimizers(agent, variables):
    """Builds the optimizers of an agent; returns their variables."""
    found = []
    for name, optimizer in vars(agent).items():
        if not hasattr(optimizer, "apply_gradients"):
            continue
        # Keras 3 and 2; and what Keras 2 had before.
        build = getattr(
            optimizer, "build", getattr(optimizer, "_create_all_weights", None)
        )
        if build is None:
            raise TypeError(
                "The optimizers of an agent must be those of Keras. Received: "
                f"{name}={optimizer!r}. Give `keras.optimizers.Adam()` to the "
                "agent."
            )
        if not getattr(optimizer, "built", False):
            # For all that is trained, since an agent does not tell which of
            # it an optimizer will get; and here, to know what it starts with.
            build(variables)
        own = optimizer.variables
        found.extend(own() if callable(own) else own)
    return [
        variable.value if isinstance(variable, keras.Variable) else variable
        for variable in found
    ]
