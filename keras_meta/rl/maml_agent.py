import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import actor_policy

from keras_meta import adapting_weights
from keras_meta import arguments
from keras_meta import inner_loop
from keras_meta import masks
from keras_meta.rl import export
from keras_meta.rl import maml_export
from keras_meta.rl import outer_updates
from keras_meta.rl import rollouts as rollouts_module
from keras_meta.rl import sampling_gradients
from keras_meta.rl.advantages import mean
from keras_meta.rl.environments.task_family import rows_of
from keras_meta.rl.experience_batch import experience_batch
from keras_meta.rl.fast_weights_policy import FastWeightsPolicy
from keras_meta.rl.fast_weights_policy import forward
from keras_meta.rl.meta_agent import MetaAgent
from keras_meta.rl.meta_agent import MetaExperience
from keras_meta.rl.networks import KerasDistributionNetwork
from keras_meta.rl.outer_problem import OuterProblem
from keras_meta.update_rules.gradient_descent import rule_or_descent


class MAMLAgent(MetaAgent):
    """MAML for policies: a start from which a few rollouts are enough.

    In each task, an inner step follows the policy gradient of a few rollouts,
    whose advantages are told by a linear baseline that is fitted to them.
    The outer step improves what the policy gets after the inner steps, and
    its gradient passes through these.

    The policies of all tasks run side by side in one graph: the state of the
    policy is the adapted weights.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        network: A `keras_meta.rl.KerasDistributionNetwork`.
        optimizer: A `keras.optimizers.Optimizer` for the outer steps;
            `outer_update="trpo"` needs none. `None` (the default) where
            `AgentModel.compile()` gives one.
        inner_steps: Integer of 1 or more, the number of inner steps. Each
            has rollouts of its own. Defaults to `1`.
        inner_learning_rate: Float above 0, the rate of plain gradient
            descent. Defaults to `0.1` where no `update_rule` is given.
        rollouts: Integer of 1 or more, the rollouts of each task for each
            inner step, and after the last. Defaults to `20`.
        outer_update: `"ppo"` (the default), `"reinforce"` or `"trpo"`; or
            one of the classes in `keras_meta.rl.outer_updates` with settings
            of its own.
        first_order: Boolean. If true, the gradients of the inner steps count
            as constants. Defaults to `False`.
        every_step: Boolean. If true, the outer step improves the policies
            after each inner step, and not only after the last. Defaults to
            `False`.
        update_rule: How an inner step is taken: one of
            `keras_meta.update_rules`. Mutually exclusive with
            `inner_learning_rate`.
        adapts: Which weights adapt: `"all"` (the default); `"head"`, the last
            layers, which the policy has put on the model's features (ANIL);
            `"body"`, all but these; or a function of layers, see
            `keras_meta.MAML`.
        sampling_gradient: How the outer gradient counts that the policy
            decides on which rollouts it is adapted: `None` (the default), it
            does not, as in MAML; `"e_maml"`; `"promp"`; or one of the classes
            in `keras_meta.rl.sampling_gradients` with settings of its own.
        discount: Float from 0 to 1, what a reward is worth one step later.
            Defaults to `0.99`.
        decay: Float from 0 to 1, the decay of generalized advantages.
            Defaults to `1.0`.
        name: String.

    Raises:
        ValueError: Where an argument is not as described.
        TypeError: Where the network or the rule is something else.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    policy = keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((2,), (64, 64), outputs=None),
    )
    agent = keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        policy,
        keras.optimizers.Adam(2e-3, global_clipnorm=1.0),
    )
    # An outer step is `agent.train(agent.collect(environment, goals))`.
    learn = tf.function(
        lambda goals: agent.learn(environment, goals), autograph=False
    )
    for goals in environment.tasks(meta_batch_size=20).take(2):
        info = learn(goals)
    ```

    Reference:
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
    """

    logged = ("return_before", "return_after", "gradient_norm")

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network,
        optimizer=None,
        inner_steps=1,
        inner_learning_rate=None,
        rollouts=20,
        outer_update="ppo",
        first_order=False,
        every_step=False,
        update_rule=None,
        adapts="all",
        sampling_gradient=None,
        discount=0.99,
        decay=1.0,
        name=None,
    ):
        if not isinstance(network, KerasDistributionNetwork):
            raise TypeError(
                "`network` must be a `keras_meta.rl.KerasDistributionNetwork`."
                f" Received: network={network!r}."
            )
        arguments.check_positive_integer("inner_steps", inner_steps)
        arguments.check_positive_integer("rollouts", rollouts)
        arguments.check_boolean("first_order", first_order)
        arguments.check_boolean("every_step", every_step)
        arguments.check_share("discount", discount)
        arguments.check_share("decay", decay)
        update_rule = rule_or_descent(update_rule, inner_learning_rate, 0.1)
        self.outer_update = outer_updates.get(outer_update)
        self.sampling_gradient = sampling_gradients.get(sampling_gradient)
        sampling_gradients.check(
            self.sampling_gradient, self.outer_update, first_order
        )
        self.adapting = _mask(network, adapts)
        update_rule.build_for(
            masks.chosen(network.model.trainable_variables, self.adapting)
        )
        # In functions, where Keras 2 does not look into Keras 3.
        self._network = lambda: network
        self._update_rule = lambda: update_rule
        self._rule_variables = [v.value for v in update_rule.variables]
        self.inner_steps = int(inner_steps)
        self.rollouts = int(rollouts)
        self.first_order = first_order
        self.every_step = every_step
        self.discount = float(discount)
        self.decay = float(decay)
        super().__init__(
            time_step_spec,
            action_spec,
            FastWeightsPolicy(time_step_spec, action_spec, network, True),
            FastWeightsPolicy(time_step_spec, action_spec, network),
            optimizer,
            name,
        )

    @property
    def network(self):
        """The `KerasDistributionNetwork` that the agent trains."""
        return self._network()

    @property
    def update_rule(self):
        """How an inner step is taken."""
        return self._update_rule()

    @property
    def outer_variables(self):
        return [
            *self.network.model.trainable_variables,
            *self.update_rule.trainable_variables,
        ]

    @property
    def models(self):
        """The Keras models and layers that hold what is learned."""
        return [self.network.model, self.update_rule]

    def collect(self, environment, tasks, rollouts=None, inner_steps=None):
        """Collects rollouts in each task, and adapts between them.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.
            rollouts: Integer, the rollouts of each task for each inner step;
                `None` (the default) means as in training.
            inner_steps: Integer; `None` (the default) means as in training.

        Returns:
            A `MetaExperience`: the trajectories of each inner step, those
            after the last, `[tasks * rollouts, steps, ...]`, and the weights
            with which the tasks began, `[tasks, ...]`. Rows of one task stand
            together.
        """
        rollouts = self.rollouts if rollouts is None else rollouts
        inner_steps = self.inner_steps if inner_steps is None else inner_steps
        count = tf.nest.flatten(tasks)[0].shape[0]
        rows = rows_of(environment, tasks, count * rollouts)
        start, rule_state = self.start(count)
        weights = start
        adaptation = []
        for step in range(inner_steps):
            experience, _ = rollouts_module.collect(
                environment, self.collect_policy, rows, weights
            )
            adaptation.append(experience)
            weights, rule_state = self.take_inner_step(
                weights, rule_state, experience, step
            )
        query, _ = rollouts_module.collect(
            environment, self.collect_policy, rows, weights
        )
        return MetaExperience(tuple(adaptation), query, start)

    def returns(self, environment, tasks, rollouts=None):
        rollouts, inner_steps = self._shared_out(rollouts)
        experience = self.collect(environment, tasks, rollouts, inner_steps)
        return self._returns(experience, rollouts)

    def rollout_counts(self, environment, rollouts=None):
        rollouts, inner_steps = self._shared_out(rollouts)
        return [rollouts * step for step in range(inner_steps + 1)]

    def _shared_out(self, rollouts):
        """Returns the rollouts of an inner step, and how many steps."""
        if rollouts is None:
            return self.rollouts, self.inner_steps
        arguments.check_positive_integer("rollouts", rollouts)
        if rollouts < self.inner_steps:
            raise ValueError(
                "Each inner step must have a rollout. Received: rollouts="
                f"{rollouts} and inner_steps={self.inner_steps}."
            )
        if rollouts % self.inner_steps:
            raise ValueError(
                "`rollouts` must be a multiple of the inner steps, which share "
                f"them. Received: rollouts={rollouts} and inner_steps="
                f"{self.inner_steps}."
            )
        return rollouts // self.inner_steps, self.inner_steps

    def adapt(self, environment, rollouts=None, steps=None):
        rollouts, inner_steps = self._shared_out(rollouts)
        weights, rule_state = self.start(1)
        adapt = tf.function(self.take_inner_step, autograph=False)
        collect = rollouts_module.collector(
            environment, self.collect_policy, rollouts, steps
        )
        for step in range(inner_steps):
            experience, _ = collect(weights)
            weights, rule_state = adapt(weights, rule_state, experience, step)
        network = self.network.copy_with_weights()
        for variable, value in zip(network.trainable_weights, weights):
            variable.assign(value[0])
        return actor_policy.ActorPolicy(
            self.time_step_spec, self.action_spec, network
        )

    def export(self, path):
        """Writes a SavedModel that adapts and acts, without Python.

        Its signatures are `start`, which gives the state before any task,
        `explore` and `act`, which take a state and an observation and give
        an `action` (drawn, or the most likely), and `adapt`, which takes one
        inner step: from a state and rollouts (`observation`, `action`,
        `reward` and `last` `[rollouts, steps, ...]`, the latter 1 where a
        step ends a rollout) to a state.

        Args:
            path: String or path, the folder to write.

        Example:

        ```python
        agent.export("agent")
        loaded = tf.saved_model.load("agent")
        state = loaded.signatures["start"]()
        ```
        """
        export.write_saved_model(
            path, self.models, maml_export.exported_functions(self)
        )

    def start(self, count):
        """Returns what a number of tasks begin with.

        Args:
            count: Integer, the number of tasks.

        Returns:
            A tuple: the weights of the policies, `[tasks, ...]`, and the
            state of the update rule.
        """
        weights = self._weights_at_start(count)
        adapting = masks.chosen(weights, self.adapting)
        rule_state = tf.vectorized_map(self.update_rule.initial_state, adapting)
        return weights, rule_state

    def _weights_at_start(self, count):
        """Returns the weights before any adaptation, `[tasks, ...]`."""
        return self.collect_policy.get_initial_state(count)

    def initial_weights(self, values, start):
        """Returns where a task's inner loop starts, as a function of `values`.

        Args:
            values: List of tensors, for those of the `outer_variables` that
                are not the update rule's.
            start: Tuple of tensors, the weights with which rollouts began in
                the task.

        Returns:
            List of tensors, for `network.model.trainable_variables`.
        """
        del start
        return values

    def take_inner_step(self, weights, rule_state, experience, step):
        """Takes an inner step in each task.

        Args:
            weights: Sequence of tensors `[tasks, ...]`, the policies.
            rule_state: What the update rule remembers.
            experience: A `Trajectory` of tensors `[rows, steps, ...]`. Rows of
                one task stand together.
            step: Integer or integer tensor, 0 for the first step.

        Returns:
            A tuple: the weights and what the rule remembers after the step.
        """
        count = tf.nest.flatten(weights)[0].shape[0]

        def adapt(task):
            weights, rule_state, batch = task
            adaptation = self.descend(
                list(weights), rule_state, batch, step, constant=True
            )
            return (
                tuple(adaptation.weights_per_step[-1]),
                adaptation.rule_state,
            )

        weights, rule_state = tf.vectorized_map(
            adapt, (weights, rule_state, self._batch(experience, count))
        )
        return tf.nest.map_structure(tf.stop_gradient, (weights, rule_state))

    def descend(self, weights, rule_state, batch, step, constant):
        """Takes an inner step in one task, as a function of its weights.

        Args:
            weights: List of tensors, the policy.
            rule_state: What the update rule remembers; `None` before the
                first step.
            batch: Dictionary of the task's part of a batch. It may hold
                `"log_probability"`, `[actions]`, that of each action when it
                was taken; else it was taken by this policy.
            step: Integer or integer tensor, 0 for the first step.
            constant: Boolean, whether the gradient of the step counts as a
                constant.

        Returns:
            A `keras_meta.inner_loop.Adaptation`.
        """

        def objective(step, weights, state):
            del step
            distribution = self.network.read(
                forward(self.network, weights, batch["observation"])
            )
            new = distribution.log_prob(batch["action"])
            old = batch.get("log_probability", tf.stop_gradient(new))
            loss = self.sampling_gradient.inner_loss(
                new - old, batch["advantage"]
            )
            return mean(loss, batch["weight"]), state

        return inner_loop.descend(
            objective,
            weights,
            (),
            self.update_rule,
            steps=1,
            adapting=self.adapting,
            constant_steps=1 if constant else 0,
            rule_state=rule_state,
            first_step=step,
        )

    def _batch(self, experience, count):
        return experience_batch(experience, count, self.discount, self.decay)

    def _train(self, experience, weights=None):
        del weights
        if not isinstance(self.outer_update, outer_updates.TrustRegion):
            self.check_optimizer()
        count = experience.query.reward.shape[0] // self.rollouts
        *adaptation, query = [
            self._batch(stage, count)
            for stage in (*experience.adaptation, experience.query)
        ]
        problem = OuterProblem(self, adaptation, query, experience.start)
        loss, norm = self.outer_update.apply(problem, self.optimizer)
        self.train_step_counter.assign_add(1)
        returns = tf.reduce_mean(
            self._returns(experience, self.rollouts), axis=0
        )
        extra = {
            "return_before": returns[0],
            "return_after": returns[-1],
            "gradient_norm": norm,
        }
        return tf_agent.LossInfo(loss, extra)

    def _returns(self, experience, rollouts):
        """Returns the mean return of each task and step, `[tasks, points]`."""
        stages = [
            tf.reshape(rollouts_module.first_returns(stage), [-1, rollouts])
            for stage in (*experience.adaptation, experience.query)
        ]
        return tf.stack(
            [tf.reduce_mean(stage, axis=1) for stage in stages], axis=1
        )


def _mask(network, adapts):
    """Returns which of a policy's weights adapt."""
    if adapts not in ("head", "body"):
        return adapting_weights.mask(network.model, adapts)
    head = {id(variable) for variable in network.head_variables}
    return [
        (id(variable) in head) == (adapts == "head")
        for variable in network.model.trainable_variables
    ]
