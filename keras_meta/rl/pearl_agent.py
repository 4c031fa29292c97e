import tensorflow as tf
from tf_agents.agents import tf_agent

from keras_meta import arguments
from keras_meta.rl import export
from keras_meta.rl import latent_belief
from keras_meta.rl import rollouts as rollouts_module
from keras_meta.rl import vectors
from keras_meta.rl.context_encoder import ContextEncoder
from keras_meta.rl.graph_loop import repeat
from keras_meta.rl.latent_policy import LatentPolicy
from keras_meta.rl.meta_agent import MetaAgent
from keras_meta.rl.rows import row_count
from keras_meta.rl.soft_actor_critic import SoftActorCritic
from keras_meta.rl.task_memory import TaskMemory
from keras_meta.rl.task_memory import Transitions
from keras_meta.rl.task_memory import transitions_of


class PEARLAgent(MetaAgent):
    """PEARL: guesses from a few rollouts what the task is, and acts on that.

    An encoder reads each transition that was seen in a task; all it says,
    multiplied, is a normal distribution of a latent variable. An actor and
    two critics (soft actor-critic) get a draw of it beside the observation.
    They learn off policy, from a memory of tasks, so that few steps in the
    environments are enough. To adapt is to look: no weight changes.

    Actions are real vectors with bounds, observations are real.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        horizon: Integer of 1 or more, the longest a rollout may be: the
            `horizon` of the environment.
        optimizer: A `keras.optimizers.Optimizer`. `None` (the default) where
            `AgentModel.compile()` gives one.
        actor_model: A built `keras.Model` from the observation and the
            latent variable, joined to one vector, to features `[examples,
            features]`. The agent gets a copy with new weights. `None` (the
            default) means two dense layers of 64 units.
        critic_model: The same for both critics, from the observation, the
            latent variable and the action.
        encoder_model: The same for the encoder, from the observation, the
            action, the reward and the next observation.
        latent_size: Integer of 1 or more, the size of the latent variable.
            Defaults to `5`.
        rollouts: Integer of 1 or more, on how many rollouts is adapted in
            each task; another one is played after that. Defaults to `3`.
        prior_rollouts: Integer from 1 to `rollouts`, how many of these are
            played before anything is inferred, each on a guess drawn from
            the prior; the others on what all before tell. Defaults to `2`.
        slots: Integer of 1 or more, how many tasks the memory holds.
            Defaults to `500`.
        gradient_steps: Integer of 1 or more, the steps of soft actor-critic
            in an outer step. Defaults to `50`.
        meta_batch_size: Integer of 1 or more, from how many tasks of the
            memory each of these learns. Defaults to `16`.
        minibatch_size: Integer of 1 or more, from how many transitions of
            each. Defaults to `64`.
        divergence_weight: Float from 0, how much the divergence of what is
            inferred from the prior counts. Defaults to `0.02`.
        reward_scale: Float above 0, with which rewards are multiplied before
            anything is learned from them. Defaults to `5.0`.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        target_rate: Float from 0 to 1, how far the target critics follow in
            each step. Defaults to `0.05`.
        temperature: Float above 0, how much entropy counts at the start.
            Defaults to `0.1`.
        target_entropy: Float, the entropy that the temperature sees to,
            where actions are counted in units of their bounds; `"auto"` (the
            default) for minus the number of actions; `None` for a
            temperature that stays.
        name: String.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation(horizon=10)
    agent = keras_meta.rl.PEARLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        environment.horizon,
        keras.optimizers.Adam(1e-3),
        gradient_steps=5,
    )
    # An outer step is `agent.train(agent.collect(environment, tasks))`.
    learn = tf.function(
        lambda tasks: agent.learn(environment, tasks), autograph=False
    )
    for tasks in environment.tasks(meta_batch_size=4).take(2):
        info = learn(tasks)
    ```

    Reference:
        - [Rakelly et al., 2019](https://arxiv.org/abs/1903.08254)
    """

    logged = (
        "return_before",
        "return_after",
        "critic_loss",
        "actor_loss",
        "divergence",
        "temperature",
    )

    def __init__(
        self,
        time_step_spec,
        action_spec,
        horizon,
        optimizer=None,
        actor_model=None,
        critic_model=None,
        encoder_model=None,
        latent_size=5,
        rollouts=3,
        prior_rollouts=2,
        slots=500,
        gradient_steps=50,
        meta_batch_size=16,
        minibatch_size=64,
        divergence_weight=0.02,
        reward_scale=5.0,
        discount=0.99,
        target_rate=0.05,
        temperature=0.1,
        target_entropy="auto",
        name=None,
    ):
        for key, value in (
            ("horizon", horizon),
            ("latent_size", latent_size),
            ("rollouts", rollouts),
            ("prior_rollouts", prior_rollouts),
            ("slots", slots),
            ("gradient_steps", gradient_steps),
            ("meta_batch_size", meta_batch_size),
            ("minibatch_size", minibatch_size),
        ):
            arguments.check_positive_integer(key, value)
        arguments.check_number_from_zero("divergence_weight", divergence_weight)
        arguments.check_positive_number("reward_scale", reward_scale)
        if prior_rollouts > rollouts:
            raise ValueError(
                "`prior_rollouts` must be some of the `rollouts`. Received: "
                f"prior_rollouts={prior_rollouts} and rollouts={rollouts}. "
                "Lower the first, or raise the second."
            )
        if slots < meta_batch_size:
            raise ValueError(
                "The memory must hold as many tasks as a step learns from. "
                f"Received: slots={slots} and meta_batch_size="
                f"{meta_batch_size}. Raise `slots`."
            )
        self.horizon = int(horizon)
        self.latent_size = int(latent_size)
        self.rollouts = int(rollouts)
        self.prior_rollouts = int(prior_rollouts)
        self.gradient_steps = int(gradient_steps)
        self.meta_batch_size = int(meta_batch_size)
        self.minibatch_size = int(minibatch_size)
        self.divergence_weight = float(divergence_weight)
        self.reward_scale = float(reward_scale)
        observation = time_step_spec.observation
        latent = tf.TensorSpec([latent_size], tf.float32)
        number = tf.TensorSpec([], tf.float32)
        transition = Transitions(
            observation, action_spec, number, number, observation
        )
        # What the actor sees, joined to one vector.
        self._state_spec = lambda: (observation, latent)
        self._actor_critic = SoftActorCritic(
            tf.TensorSpec([vectors.size(self._state_spec())], tf.float32),
            action_spec,
            actor_model,
            critic_model,
            discount,
            target_rate,
            temperature,
            target_entropy,
        )
        self._encoder = ContextEncoder(
            transition,
            self._actor_critic.in_units,
            encoder_model,
            self.latent_size,
            self.reward_scale,
        )
        self._memory = TaskMemory(
            transition, int(slots), self.rollouts + 1, self.horizon
        )
        super().__init__(
            time_step_spec,
            action_spec,
            *[
                LatentPolicy(
                    time_step_spec,
                    action_spec,
                    self._actor_critic.actor,
                    self.latent_size,
                    greedy,
                )
                for greedy in (True, False)
            ],
            optimizer,
            name,
        )

    @property
    def models(self):
        """The Keras models and layers that hold what is learned."""
        return [self._encoder.network.model, *self._actor_critic.models]

    @property
    def outer_variables(self):
        return [*self._critic_variables, *self._actor_critic.actor_variables]

    @property
    def _critic_variables(self):
        """What the loss of the critics trains: the encoder, too."""
        return [
            *self._encoder.network.model.trainable_variables,
            *self._actor_critic.critic_variables,
        ]

    def collect(self, environment, tasks):
        """Plays rollouts in each task, one after the other, and infers.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.

        Returns:
            A TF-Agents `Trajectory` of tensors `[tasks, rollouts + 1, horizon
            + 1, ...]`, the last rollout on what all before tell. The last
            step shows how a rollout ended.

        Raises:
            ValueError: Where rollouts are longer than the `horizon`.
        """
        self._check_horizon(environment)
        count = row_count(tasks)

        def play(number, belief, arrays):
            experience, belief = self._explore(
                environment, tasks, belief, number
            )
            arrays = tf.nest.map_structure(
                lambda array, leaf: array.write(number, leaf),
                arrays,
                experience,
            )
            return belief, arrays

        arrays = tf.nest.map_structure(
            lambda spec: tf.TensorArray(
                spec.dtype,
                self.rollouts + 1,
                element_shape=[None, self.horizon + 1, *spec.shape],
            ),
            self.collect_policy.trajectory_spec,
        )
        prior = latent_belief.prior(count, self.latent_size)
        _, arrays = repeat(self.rollouts + 1, play, prior, arrays)
        return tf.nest.map_structure(_by_task, arrays)

    def _check_horizon(self, environment):
        if environment.horizon > self.horizon:
            raise ValueError(
                "Rollouts must not be longer than the agent's horizon. "
                f"Received: rollouts of {environment.horizon} steps and "
                f"horizon={self.horizon}. Give the agent the `horizon` of the "
                "environment."
            )

    def _explore(self, environment, tasks, belief, number):
        """Plays the rollout of a number; returns it, and what it tells."""
        prior = latent_belief.prior(row_count(tasks), self.latent_size)
        known = number >= self.prior_rollouts
        guess = tf.nest.map_structure(
            lambda one, other: tf.where(known, one, other), belief, prior
        )
        experience = self._play(environment, tasks, guess, self.collect_policy)
        return experience, self._encoder.inferred(
            belief, *transitions_of(experience)
        )

    def _play(self, environment, tasks, belief, policy):
        experience, _ = rollouts_module.collect(
            environment,
            policy,
            tasks,
            latent_belief.draw(belief),
            # One more, which shows how the last one ended.
            steps=self.horizon + 1,
        )
        return experience

    def returns(self, environment, tasks, rollouts=None):
        self._check_horizon(environment)
        rollouts = self._rollouts_of(rollouts)
        count = row_count(tasks)

        def play(number, belief, returns):
            # By the policy that `adapt()` gives; this is not adapted on.
            measured = self._play(environment, tasks, belief, self.policy)
            returns = returns.write(
                number, rollouts_module.first_returns(measured)
            )
            _, belief = self._explore(environment, tasks, belief, number)
            return belief, returns

        returns = tf.TensorArray(tf.float32, rollouts + 1, element_shape=[None])
        prior = latent_belief.prior(count, self.latent_size)
        _, returns = repeat(rollouts + 1, play, prior, returns)
        return tf.transpose(returns.stack())

    def rollout_counts(self, environment, rollouts=None):
        return list(range(self._rollouts_of(rollouts) + 1))

    def _rollouts_of(self, rollouts):
        if rollouts is None:
            return self.rollouts
        arguments.check_positive_integer("rollouts", rollouts)
        return rollouts

    def adapt(self, environment, rollouts=None, steps=None):
        if steps is None:
            steps = getattr(environment, "horizon", None)
        collect = rollouts_module.collector(
            environment, self.collect_policy, 1, steps and steps + 1
        )
        prior = belief = latent_belief.prior(1, self.latent_size)
        for number in range(self._rollouts_of(rollouts)):
            guess = latent_belief.draw(
                prior if number < self.prior_rollouts else belief
            )
            rows = environment.batch_size or 1
            experience, _ = collect(tf.repeat(guess, rows, axis=0))
            belief = self._encoder.inferred(belief, *transitions_of(experience))
        # A copy, which does not learn on.
        network = self._actor_critic.actor.copy_with_weights()
        return LatentPolicy(
            self.time_step_spec,
            self.action_spec,
            network,
            self.latent_size,
            greedy=True,
            belief=belief,
        )

    def export(self, path):
        """Writes a SavedModel that infers and acts, without Python.

        Its signatures are `start`, which gives the state before any task:
        mean and variance of the latent variable; `adapt`, which takes a state
        and transitions (`observation`, `action`, `reward` and
        `next_observation`, `[transitions, ...]`) and gives a state; `guess`,
        which draws a `latent` from a state; and `explore` and `act`, which
        take a `latent` and observations and give an `action` (drawn, or the
        most likely) for each.

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
        observation = self.time_step_spec.observation
        nothing = latent_belief.prior(1, self.latent_size)

        def start():
            return export.named("state", nothing)

        def adapt(reward, action, **inputs):
            transitions = Transitions(
                export.unnamed("observation", observation, inputs),
                action,
                reward,
                tf.ones_like(reward),
                export.unnamed("next_observation", observation, inputs),
            )
            transitions, weights = tf.nest.map_structure(
                lambda leaf: leaf[None], (transitions, tf.ones_like(reward))
            )
            belief = export.unnamed("state", nothing, inputs)
            belief = self._encoder.inferred(belief, transitions, weights)
            return export.named("state", belief)

        def guess(**inputs):
            belief = export.unnamed("state", nothing, inputs)
            return {"latent": latent_belief.draw(belief)}

        def distribution(latent, inputs):
            seen = export.unnamed("observation", observation, inputs)
            rows = tf.shape(tf.nest.flatten(seen)[0])[0]
            latent = tf.broadcast_to(latent, [rows, self.latent_size])
            state = vectors.joined((seen, latent), self._state_spec())
            return self._actor_critic.actor(state)[0]

        def explore(latent, **inputs):
            return {"action": distribution(latent, inputs).sample()}

        def act(latent, **inputs):
            return {"action": distribution(latent, inputs).mode()}

        states = export.named("state", export.of_tensors(nothing))
        rows = export.with_axes(observation, None)
        observed = export.named("observation", rows)
        transitions = {
            **observed,
            **export.named("next_observation", rows),
            "action": export.with_axes(self.action_spec, None),
            "reward": tf.TensorSpec([None], tf.float32),
        }
        latent = {"latent": tf.TensorSpec([None, self.latent_size], tf.float32)}
        return {
            "start": (start, {}),
            "adapt": (adapt, {**states, **transitions}),
            "guess": (guess, states),
            "explore": (explore, {**latent, **observed}),
            "act": (act, {**latent, **observed}),
        }

    def _train(self, experience, weights=None):
        del weights
        self.check_optimizer()
        tasks, rollouts = experience.reward.shape[:2]
        rows = tf.nest.map_structure(
            lambda leaf: tf.reshape(leaf, [-1, *leaf.shape[2:]]), experience
        )
        self._memory.write(
            *tf.nest.map_structure(
                lambda leaf: tf.reshape(
                    leaf, [tasks, rollouts, *leaf.shape[1:]]
                ),
                transitions_of(rows),
            )
        )
        names = ("critic_loss", "actor_loss", "divergence", "temperature")

        def step(number, *totals):
            del number
            found = self._step(*self._draw())
            return [total + found[n] for total, n in zip(totals, names)]

        totals = repeat(self.gradient_steps, step, *[0.0] * len(names))
        logs = {n: t / self.gradient_steps for n, t in zip(names, totals)}
        loss = logs["critic_loss"]
        loss += self.divergence_weight * logs["divergence"]
        returns = tf.reshape(
            rollouts_module.first_returns(rows), [tasks, rollouts]
        )
        logs["return_before"] = tf.reduce_mean(returns[:, 0])
        logs["return_after"] = tf.reduce_mean(returns[:, -1])
        self.train_step_counter.assign_add(1)
        return tf_agent.LossInfo(loss, logs)

    def _draw(self):
        """Draws what a step learns from, some tasks of the memory.

        Returns:
            A tuple: what was seen of each task up to some time, `[tasks,
            rollouts * steps, ...]`, with its weights; and transitions of the
            same task to learn from, `[tasks, minibatch_size, ...]`.
        """
        slots = self._memory.draw_slots(self.meta_batch_size)
        context, weights = self._memory.rollouts(slots)
        # Whole rollouts, in their order: what is inferred from must be what
        # it will be in a new task. The steps of a rollout are alike; drawn
        # one by one from all rollouts they would tell more.
        tasks, rollouts, _ = weights.shape
        seen = tf.random.uniform([tasks, 1, 1], 0, rollouts, tf.int32)
        numbers = tf.range(rollouts)[:, None]
        weights *= tf.cast(numbers <= seen, tf.float32)
        context, weights = tf.nest.map_structure(
            lambda leaf: tf.reshape(leaf, [tasks, -1, *leaf.shape[3:]]),
            (context, weights),
        )
        batch = self._memory.draw_transitions(slots, self.minibatch_size)
        return context, weights, batch

    def _step(self, context, weights, batch):
        """Takes a step of soft actor-critic; returns what to log."""
        learner = self._actor_critic
        tasks = batch.reward.shape[0]
        prior = latent_belief.prior(tasks, self.latent_size)
        # The encoder learns by what the critics make of the latent variable.
        with tf.GradientTape() as tape:
            belief = self._encoder.inferred(prior, context, weights)
            latent = latent_belief.draw(belief)
            state = self._state(batch.observation, latent)
            target_values = learner.target_values(
                self.reward_scale * batch.reward,
                batch.discount,
                self._state(batch.next_observation, latent),
            )
            errors = learner.critic_loss(state, batch.action, target_values)
            divergence = tf.reduce_mean(latent_belief.divergence(belief))
            loss = errors + self.divergence_weight * divergence
        variables = self._critic_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        variables = learner.actor_variables
        with tf.GradientTape() as tape:
            actor_loss = learner.actor_loss(tf.stop_gradient(state))
        gradients += tape.gradient(actor_loss, [v.value for v in variables])
        self.optimizer.apply(gradients, self.outer_variables)
        learner.follow()
        return {
            "critic_loss": errors,
            "actor_loss": actor_loss,
            "divergence": divergence,
            "temperature": learner.temperature,
        }

    def _state(self, observation, latent):
        latent = tf.repeat(latent[:, None], self.minibatch_size, axis=1)
        return vectors.joined((observation, latent), self._state_spec())


def _by_task(array):
    """Returns what was written by rollout, by task and rollout."""
    stacked = array.stack()
    axes = range(2, stacked.shape.rank)
    return tf.transpose(stacked, [1, 0, *axes])
