import keras
import tensorflow as tf
from tf_agents.agents import tf_agent

from keras_meta import arguments
from keras_meta.rl import advantages
from keras_meta.rl import export
from keras_meta.rl import rollouts as rollouts_module
from keras_meta.rl import vectors
from keras_meta.rl.advantages import mean
from keras_meta.rl.environments.trials import Trials
from keras_meta.rl.environments.trials import returns_by_rollout
from keras_meta.rl.graph_loop import repeat
from keras_meta.rl.heads import choices
from keras_meta.rl.heads import policy_head
from keras_meta.rl.meta_agent import MetaAgent
from keras_meta.rl.outer_updates import ClippedSurrogate
from keras_meta.rl.recurrent_network import KerasRecurrentNetwork
from keras_meta.rl.recurrent_network import output_size
from keras_meta.rl.recurrent_policy import RecurrentPolicy


class RL2Agent(MetaAgent):
    """RL^2: a recurrent policy that has learned to learn, in its memory.

    The agent plays trials, several rollouts in one task, and sees its last
    action and reward. PPO trains it for the reward of the whole trial, so
    that it learns to explore first. To adapt is to play: no weight changes.

    Args:
        time_step_spec: The `time_step_spec()` of
            `keras_meta.rl.environments.Trials`.
        action_spec: The `action_spec()` of the same.
        cell: A cell of Keras, the memory. `None` (the default) means
            `keras.layers.GRUCell(128)`.
        optimizer: A `keras.optimizers.Optimizer`. `None` (the default) where
            `AgentModel.compile()` gives one.
        epochs: Integer of 1 or more, how often PPO uses each trial. Defaults
            to `5`.
        minibatches: Integer of 1 or more, in how many parts, which must be
            equal. Defaults to `1`.
        clip: Float above 0, by what share the chance of an action may
            change. Defaults to `0.2`.
        entropy: Float from 0, how much the entropy of the policy counts.
            Defaults to `0.01`.
        value_weight: Float above 0, how much the error of the expected
            rewards counts, in units of their variance. Defaults to `1.0`.
        prediction_weight: Float from 0, how much the error counts with which
            the next reward is foretold, in units of the variance. To tell it
            is to remember what an action has paid, which rewards alone teach
            slowly where there is much to remember. Defaults to `0.0`, as in
            the paper.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        decay: Float from 0 to 1, the decay of generalized advantages.
            Defaults to `0.3`.
        deviation: Float above 0, where the standard deviation of real
            actions starts, in units of their bounds. Defaults to `1.0`.
        unroll: Integer, the longest trial in steps; gradients pass back
            through a whole trial. `None` (the default) means any.
        name: String.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    bandits = keras_meta.rl.environments.Bandits(arms=5, horizon=1)
    trials = keras_meta.rl.environments.Trials(bandits, rollouts=10)
    agent = keras_meta.rl.RL2Agent(
        trials.time_step_spec(),
        trials.action_spec(),
        keras.layers.GRUCell(32),
        keras.optimizers.Adam(3e-3),
    )
    # An outer step is `agent.train(agent.collect(trials, tasks))`.
    learn = tf.function(
        lambda tasks: agent.learn(trials, tasks), autograph=False
    )
    for tasks in trials.tasks(meta_batch_size=256).take(2):
        info = learn(tasks)
    ```

    Reference:
        - [Duan et al., 2016](https://arxiv.org/abs/1611.02779)
        - [Wang et al., 2016](https://arxiv.org/abs/1611.05763)
        - [Jaderberg et al., 2017](https://arxiv.org/abs/1611.05397), for the
          prediction of rewards
    """

    logged = ("return",)

    def __init__(
        self,
        time_step_spec,
        action_spec,
        cell=None,
        optimizer=None,
        epochs=5,
        minibatches=1,
        clip=0.2,
        entropy=0.01,
        value_weight=1.0,
        prediction_weight=0.0,
        discount=0.99,
        decay=0.3,
        deviation=1.0,
        unroll=None,
        name=None,
    ):
        arguments.check_positive_integer("epochs", epochs)
        arguments.check_positive_integer("minibatches", minibatches)
        arguments.check_number_from_zero("entropy", entropy)
        arguments.check_positive_number("value_weight", value_weight)
        arguments.check_number_from_zero("prediction_weight", prediction_weight)
        arguments.check_share("discount", discount)
        arguments.check_share("decay", decay)
        if unroll is not None:
            arguments.check_positive_integer("unroll", unroll)
        self._surrogate = ClippedSurrogate(clip)
        self.epochs = int(epochs)
        self.minibatches = int(minibatches)
        self.entropy = float(entropy)
        self.value_weight = float(value_weight)
        self.prediction_weight = float(prediction_weight)
        self.discount = float(discount)
        self.decay = float(decay)
        self.unroll = unroll
        if cell is None:
            cell = keras.layers.GRUCell(128)
        heads, self._read = policy_head(action_spec, "auto", deviation)
        inputs = keras.Input((output_size(cell),))
        layers = [*heads, keras.layers.Dense(1, kernel_initializer="zeros")]
        if self.prediction_weight:
            nothing = tf.zeros(action_spec.shape, action_spec.dtype)
            size = _in_numbers(nothing, action_spec).shape[-1]
            layers.append(keras.layers.Dense(size, kernel_initializer="zeros"))
        self._heads = len(heads)
        model = keras.Model(inputs, [layer(inputs) for layer in layers])
        observation_spec = time_step_spec.observation
        # One set of weights: what to do, and what to expect of it.
        network = KerasRecurrentNetwork(observation_spec, cell, model)
        policy_network = KerasRecurrentNetwork(
            observation_spec, cell, model, head=self._distribution
        )
        self._network = lambda: network
        self._policy_network = lambda: policy_network
        self._models = lambda: [cell, model]
        super().__init__(
            time_step_spec,
            action_spec,
            RecurrentPolicy(time_step_spec, action_spec, policy_network, True),
            RecurrentPolicy(time_step_spec, action_spec, policy_network),
            optimizer,
            name,
        )

    def _distribution(self, outputs):
        outputs = outputs[: self._heads]
        return self._read(outputs[0] if len(outputs) == 1 else outputs)

    @property
    def models(self):
        """The Keras layers and models that hold what is learned."""
        return self._models()

    @property
    def outer_variables(self):
        return [v for model in self.models for v in model.trainable_variables]

    def collect(self, environment, tasks, greedy=False):
        """Plays a trial in each task.

        Args:
            environment: A `keras_meta.rl.environments.Trials`.
            tasks: Nested structure of tensors `[tasks, ...]`.
            greedy: Boolean, whether to take the most likely actions.

        Returns:
            A TF-Agents `Trajectory` of tensors `[tasks, steps, ...]`.

        Raises:
            TypeError: Where the environment is something else.
            ValueError: Where a trial is longer than the `unroll`.
        """
        self._check_trials(environment)
        policy = self.policy if greedy else self.collect_policy
        experience, _ = rollouts_module.collect(environment, policy, tasks)
        return experience

    def _check_trials(self, environment):
        if not isinstance(environment, Trials):
            raise TypeError(
                "`RL2Agent` plays trials. Received: environment="
                f"{environment!r}. Wrap it: `keras_meta.rl.environments."
                "Trials(environment, rollouts=2)`."
            )
        if self.unroll is not None and environment.horizon > self.unroll:
            raise ValueError(
                "A trial must not be longer than the recurrent unroll. "
                f"Received: unroll={self.unroll} and trials of "
                f"{environment.horizon} steps. Raise `unroll`, or take fewer "
                "or shorter rollouts."
            )

    def returns(self, environment, tasks, rollouts=None, greedy=False):
        rollouts = self._rollouts_of(environment, rollouts)
        experience = self.collect(environment, tasks, greedy)
        return returns_by_rollout(experience, environment.rollouts)[
            :, :rollouts
        ]

    def _rollouts_of(self, environment, rollouts):
        if rollouts is None:
            return environment.rollouts
        arguments.check_positive_integer("rollouts", rollouts)
        if rollouts > environment.rollouts:
            raise ValueError(
                "A trial does not have that many rollouts. Received: "
                f"rollouts={rollouts} and trials of {environment.rollouts}."
            )
        return rollouts

    def adapt(self, environment, rollouts=None, steps=None):
        self._check_trials(environment)
        rollouts = self._rollouts_of(environment, rollouts)
        # In one row: what is found out in others would not be remembered.
        if steps is None:
            steps = rollouts * environment.environment.horizon
        collect = rollouts_module.collector(
            environment, self.collect_policy, 1, steps
        )
        _, memory = collect()
        return RecurrentPolicy(
            self.time_step_spec,
            self.action_spec,
            self._policy_network(),
            greedy=True,
            memory=[part[0] for part in memory],
        )

    def rollout_counts(self, environment, rollouts=None):
        # Each point is a rollout in which all before it are remembered.
        return list(range(self._rollouts_of(environment, rollouts)))

    def export(self, path):
        """Writes a SavedModel that acts and remembers, without Python.

        Its signatures are `start`, which gives the state before a trial, and
        `explore` and `act`, which take a state and an observation (joined
        with the last action, reward and end, as `Trials` does) and give an
        `action` (drawn, or the most likely) and the next state.

        Args:
            path: String or path, the folder to write.

        Example:

        ```python
        agent.export("agent")
        loaded = tf.saved_model.load("agent")
        state = loaded.signatures["start"]()
        ```
        """
        export.write_saved_model(path, self.models, self._exported_functions())

    def _exported_functions(self):
        spec = self.time_step_spec.observation
        state = self.policy.get_initial_state(1)

        def start():
            return export.named("state", self.policy.get_initial_state(1))

        def step(choose, inputs):
            memory = export.unnamed("state", state, inputs)
            distribution, memory = self._policy_network()(
                inputs["observation"], network_state=memory
            )
            action = choose(distribution)
            return {"action": action, **export.named("state", memory)}

        memories = export.with_axes(self.policy.policy_state_spec, None)
        inputs = {
            **export.named("state", memories),
            "observation": export.with_axes(spec, None),
        }

        def explore(**inputs):
            return step(lambda distribution: distribution.sample(), inputs)

        def act(**inputs):
            return step(lambda distribution: distribution.mode(), inputs)

        return {
            "start": (start, {}),
            "explore": (explore, inputs),
            "act": (act, inputs),
        }

    def _train(self, experience, weights=None):
        del weights
        self.check_optimizer()
        weight = rollouts_module.first_rollout(experience)
        before, rates, _ = self._look(experience)
        old = tf.stop_gradient(before.log_prob(experience.action))
        left = steps_left(weight.shape[1], self.discount)
        values = tf.stop_gradient(rates) * left
        advantage = advantages.generalized_advantages(
            experience,
            values,
            tf.zeros_like(values[:, -1]),
            self.discount,
            self.decay,
        )
        # By what was got, and not by values of later steps: these learn slowly
        # from the end of a trial, and are wrong for too long.
        returns = advantages.discounted_returns(experience, self.discount)
        targets = returns / left
        variances = [
            tf.squeeze(advantages.moments(one, weight, 1)[1]) ** 2 + 1e-6
            for one in (targets, experience.reward)
        ]
        batch = {
            "experience": experience,
            "weight": weight,
            "old": old,
            "rates": targets,
            "advantage": advantages.normalized(advantage, weight, 1),
        }
        loss = self._epochs(batch, variances)
        self.train_step_counter.assign_add(1)
        total = rollouts_module.first_returns(experience)
        return tf_agent.LossInfo(loss, {"return": tf.reduce_mean(total)})

    def _look(self, experience):
        """Returns the distributions, and what they expect.

        Args:
            experience: A `Trajectory` of tensors `[rows, steps, ...]`.

        Returns:
            A tuple: the distributions of the actions; the reward expected of
            each step that is left, `[rows, steps]`; and that expected of the
            action, or `None` where it is not foretold.
        """
        outputs, _ = self._network()(
            experience.observation, experience.step_type
        )
        foretold = None
        if self.prediction_weight:
            action = _in_numbers(experience.action, self.action_spec)
            foretold = tf.reduce_sum(outputs[-1] * action, axis=-1)
        rates = outputs[self._heads][..., 0]
        return self._distribution(outputs), rates, foretold

    def _epochs(self, batch, variances):
        rows = batch["weight"].shape[0]
        if rows % self.minibatches:
            raise ValueError(
                "The tasks of a meta-batch must be a multiple of the "
                f"minibatches. Received: {rows} tasks and minibatches="
                f"{self.minibatches}."
            )
        size = rows // self.minibatches

        def epoch(number, loss):
            del number, loss
            # Not `tf.random.shuffle()`, which XLA does not take.
            order = tf.argsort(tf.random.uniform([rows]))
            order = tf.reshape(order, [self.minibatches, size])

            def step(part, loss):
                del loss
                minibatch = tf.nest.map_structure(
                    lambda leaf: tf.gather(leaf, order[part]), batch
                )
                return (self._step(minibatch, variances),)

            return repeat(self.minibatches, step, 0.0)

        (loss,) = repeat(self.epochs, epoch, 0.0)
        return loss

    def _step(self, batch, variances):
        variables = self.outer_variables
        experience, weight = batch["experience"], batch["weight"]

        with tf.GradientTape() as tape:
            distribution, rates, foretold = self._look(experience)
            log_ratio = distribution.log_prob(experience.action) - batch["old"]
            loss = mean(
                self._surrogate.loss(log_ratio, batch["advantage"]), weight
            )
            errors = tf.square(rates - batch["rates"]) / variances[0]
            loss += self.value_weight * mean(errors, weight)
            if foretold is not None:
                errors = tf.square(foretold - experience.reward) / variances[1]
                loss += self.prediction_weight * mean(errors, weight)
            loss -= self.entropy * mean(distribution.entropy(), weight)
        gradients = tape.gradient(loss, [v.value for v in variables])
        self.optimizer.apply(gradients, variables)
        return loss


def _in_numbers(action, spec):
    """Returns what a reward is told from as a weighted sum.

    Args:
        action: Tensor `[..., *shape]`.
        spec: The specification of an action.

    Returns:
        Float tensor `[..., size]`: one-hot where actions are integers.
    """
    if spec.dtype.is_integer:
        return tf.one_hot(action, choices(spec))
    action = vectors.joined(action, spec)
    return tf.concat([action, tf.ones_like(action[..., :1])], axis=-1)


def steps_left(steps, discount):
    """Returns how many steps are left of a trial, with later ones discounted.

    What is expected of the rest of a trial is told as a reward for each of
    these: it changes little from step to step, while the sum runs down to
    nothing, and the errors of a network that had to count along would be
    larger than the rewards.

    Args:
        steps: Integer, the steps of a trial.
        discount: Float from 0 to 1, what a step is worth one step later.

    Returns:
        Float tensor `[steps]`, 1 for the last step.
    """
    powers = discount ** tf.range(steps, dtype=tf.float32)
    return tf.cumsum(powers)[::-1]
