import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import actor_policy

from keras_meta import arguments
from keras_meta import update_rules
from keras_meta.rl import lives as lives_module
from keras_meta.rl import rollouts as rollouts_module
from keras_meta.rl.actor_critic import ActorCritic
from keras_meta.rl.environments.task_family import rows_of
from keras_meta.rl.fast_weights_policy import FastWeightsPolicy
from keras_meta.rl.graph_loop import repeat
from keras_meta.rl.held_state import HeldState
from keras_meta.rl.iterated_agent import IteratedAgent
from keras_meta.rl.learned_objective import LearnedObjective
from keras_meta.rl.rows import choose_rows


class MetaGenRLAgent(IteratedAgent):
    """MetaGenRL: an objective that is learned, and then trains new agents.

    A population of agents learns, each in a task of its own: critics as in
    DDPG, and actors by the `LearnedObjective` that all of them share. The
    objective learns to make steps of the actors that their critics find
    good: the gradient passes through the step. Where an agent has lived long
    enough, a new one with new weights begins in a new task, so that there
    are agents of all ages, and the objective serves each.

    To adapt is to train a new agent by the objective, which stays as it is.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment, one real vector
            with bounds.
        objective: A `keras_meta.rl.LearnedObjective`; agents for several
            environments may share one. `None` (the default) means a new one.
        optimizer: A `keras.optimizers.Optimizer` for the objective. `None`
            (the default) where `AgentModel.compile()` gives one.
        population: Integer of 1 or more, how many agents learn side by side;
            a batch of tasks must have as many. Defaults to `8`.
        inner_iterations: Integer of 1 or more, how often an agent collects in
            its life, and is trained. Defaults to `20`.
        rollouts: Integer of 1 or more, the rollouts of an iteration.
            Defaults to `2`.
        gradient_steps: Integer of 1 or more, those of an iteration. Defaults
            to `20`.
        windows: Integer of 1 or more, the windows of rollouts that a gradient
            step is taken on. Defaults to `8`.
        window_steps: Integer of 1 or more, how long they are; rollouts must
            not be shorter. Defaults to `10`.
        inner_learning_rate: Float above 0, the rate of the actors. Defaults
            to `0.1` where no `update_rule` is given.
        update_rule: How a step of an actor is taken: one of
            `keras_meta.update_rules`. Mutually exclusive with
            `inner_learning_rate`.
        critic_learning_rate: Float above 0, that of the critics' Adam.
            Defaults to `3e-3`.
        model: A built `keras.Model` from observations to features, for the
            actors. `None` (the default) means two dense layers of 64 units.
        critic_model: The same for the critics; from the observation and the
            action, joined to one vector.
        noise: Float from 0, the deviation of actions while rollouts are
            collected, in units of their bounds. Defaults to `0.3`.
        target_rate: Float from 0 to 1, how far the target networks follow in
            each step. Defaults to `0.05`.
        name: String.

    Raises:
        ValueError: Where an argument is not as described.
        TypeError: Where the objective is something else.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation(horizon=20)
    agent = keras_meta.rl.MetaGenRLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        population=2,
        inner_iterations=2,
        gradient_steps=2,
    )
    model = keras_meta.rl.AgentModel(agent, environment)
    model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0))
    model.fit(environment.tasks(2), steps_per_epoch=4)
    agent.objective.save("objective.keras")
    # A new agent, trained by the objective in an environment.
    policy = agent.adapt(environment)
    ```

    Reference:
        - [Kirsch et al., 2020](https://arxiv.org/abs/1910.04098)
    """

    logged = ("return",)

    def __init__(
        self,
        time_step_spec,
        action_spec,
        objective=None,
        optimizer=None,
        population=8,
        inner_iterations=20,
        rollouts=2,
        gradient_steps=20,
        windows=8,
        window_steps=10,
        inner_learning_rate=None,
        update_rule=None,
        critic_learning_rate=3e-3,
        model=None,
        critic_model=None,
        noise=0.3,
        target_rate=0.05,
        name=None,
    ):
        for argument, value in (
            ("population", population),
            ("inner_iterations", inner_iterations),
            ("rollouts", rollouts),
            ("gradient_steps", gradient_steps),
            ("windows", windows),
            ("window_steps", window_steps),
        ):
            arguments.check_positive_integer(argument, value)
        arguments.check_number_from_zero("noise", noise)
        arguments.check_share("target_rate", target_rate)
        if objective is None:
            objective = LearnedObjective()
        if not isinstance(objective, LearnedObjective):
            raise TypeError(
                "`objective` must be a `keras_meta.rl.LearnedObjective`. "
                f"Received: objective={objective!r}."
            )
        actor_critic = ActorCritic(
            time_step_spec,
            action_spec,
            objective,
            model,
            critic_model,
            update_rules.gradient_descent.rule_or_descent(
                update_rule, inner_learning_rate, 0.1
            ),
            update_rules.Adam(critic_learning_rate, beta_2=0.99),
            noise,
            target_rate,
        )
        self.population = int(population)
        self.inner_iterations = int(inner_iterations)
        self.rollouts = int(rollouts)
        self._settings = lives_module.Settings(
            int(gradient_steps), int(windows), int(window_steps)
        )
        # In functions, where Keras 2 does not look into Keras 3.
        self._actor_critic = lambda: actor_critic
        self._held = None
        policies = [
            FastWeightsPolicy(
                time_step_spec, action_spec, actor_critic.exploring, greedy
            )
            for greedy in (True, False)
        ]
        super().__init__(
            time_step_spec, action_spec, *policies, optimizer, name
        )

    @property
    def objective(self):
        """The `LearnedObjective` that is trained."""
        return self._actor_critic().objective

    @property
    def outer_variables(self):
        return self.objective.trainable_variables

    @property
    def models(self):
        """The objective; and the population, where there is one."""
        held = [] if self._held is None else [self._held()]
        return [self.objective, *held]

    def prepare(self, environment):
        self.check_environment(environment)
        if self._settings.length > environment.horizon:
            raise ValueError(
                "A rollout must be as long as the windows on which agents are "
                f"trained. Received: window_steps={self._settings.length} and "
                f"rollouts of {environment.horizon} steps. Lower "
                "`window_steps`."
            )
        if self._held is not None:
            return
        # The first agents end one after the other, and so do all others.
        numbers = tf.range(self.population)
        ends = 1 + numbers * self.inner_iterations // self.population
        tasks = environment.sample_tasks(self.population)
        held = HeldState(
            {
                "tasks": tf.nest.map_structure(tf.convert_to_tensor, tasks),
                "lives": self._begin(environment, self.population),
                "ends": ends,
            }
        )
        self._held = lambda: held
        self._held_variables = [v.value for v in held.variables]

    def _begin(self, environment, count, iterations=None):
        iterations = self.inner_iterations if iterations is None else iterations
        # One step more than a rollout tells how it has ended.
        return lives_module.begin(
            self._actor_critic(),
            count,
            iterations * self.rollouts,
            environment.horizon + 1,
        )

    def collect(self, environment, tasks):
        """Collects rollouts of the population.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[population, ...]`: where new
                agents begin. All others stay in theirs.

        Returns:
            A `Trajectory` of tensors `[population * rollouts, steps, ...]`.
        """
        with tf.init_scope():
            self.prepare(environment)
        self._check_population(tasks)
        held = self._held().read()
        begins = tf.equal(held["lives"].age, 0)
        tasks = choose_rows(begins, tasks, held["tasks"])
        self._held().write(tasks=tasks)
        return self._explore(environment, tasks, held["lives"])

    def _check_population(self, tasks):
        count = tf.nest.flatten(tasks)[0].shape[0]
        if count != self.population:
            raise ValueError(
                "A batch must have as many tasks as there are agents. "
                f"Received: {count} tasks and population={self.population}."
            )

    def _explore(self, environment, tasks, lives, policy=None, rollouts=None):
        rollouts = self.rollouts if rollouts is None else rollouts
        count = lives.age.shape[0]
        experience, _ = rollouts_module.collect(
            environment,
            self.collect_policy if policy is None else policy,
            rows_of(environment, tasks, count * rollouts),
            tuple(lives.actor),
            steps=environment.horizon + 1,
        )
        return experience

    def _train(self, experience, weights=None):
        del weights
        self.check_optimizer()
        held = self._held().read()
        before = held["lives"]
        variables = self.outer_variables
        lives, loss = lives_module.grow(
            self._actor_critic(),
            before,
            experience,
            self._settings,
            lambda gradients: self.optimizer.apply(gradients, variables),
        )
        over = lives.age >= held["ends"]
        self._held().write(
            lives=lives_module.renewed(self._actor_critic(), lives, over),
            ends=tf.where(over, self.inner_iterations, held["ends"]),
        )
        self.train_step_counter.assign_add(1)
        returns = rollouts_module.first_returns(experience)
        returns = tf.reduce_mean(
            tf.reshape(returns, [self.population, -1]), axis=1
        )
        extra = {
            "return": tf.reduce_mean(returns),
            "return_before": returns[tf.argmin(before.age)],
            "return_after": returns[tf.argmax(before.age)],
        }
        return tf_agent.LossInfo(loss, extra)

    def returns(self, environment, tasks, rollouts=None):
        iterations = self.iterations_for(rollouts)
        self.check_environment(environment)
        count = tf.nest.flatten(tasks)[0].shape[0]

        def measured(returns, number, lives):
            experience = self._explore(
                environment, tasks, lives, self.policy, 1
            )
            return returns.write(
                number, rollouts_module.first_returns(experience)
            )

        def live(number, lives, returns):
            experience = self._explore(environment, tasks, lives)
            lives, _ = lives_module.grow(
                self._actor_critic(), lives, experience, self._settings
            )
            return lives, measured(returns, number + 1, lives)

        lives = self._begin(environment, count, iterations)
        returns = tf.TensorArray(
            tf.float32, iterations + 1, element_shape=[count]
        )
        _, returns = repeat(
            iterations, live, lives, measured(returns, 0, lives)
        )
        return tf.transpose(returns.stack())

    def adapt(self, environment, rollouts=None, steps=None):
        iterations = self.iterations_for(rollouts)
        self.check_environment(environment)
        if steps is None:
            steps = getattr(environment, "horizon", None)
        collect = rollouts_module.collector(
            environment,
            self.collect_policy,
            self.rollouts,
            # One more, as in training.
            steps=steps and steps + 1,
        )
        actor_critic = self._actor_critic()
        grow = tf.function(
            lambda lives, experience: lives_module.grow(
                actor_critic, lives, experience, self._settings
            )[0],
            autograph=False,
        )
        lives = lives_module.begin(
            actor_critic, 1, iterations * self.rollouts, steps + 1
        )
        for _ in range(iterations):
            experience, _ = collect(tuple(lives.actor))
            lives = grow(lives, experience)
        actor = actor_critic.actor.copy()
        for variable, value in zip(actor.trainable_weights, lives.actor):
            variable.assign(value[0])
        return actor_policy.ActorPolicy(
            self.time_step_spec, self.action_spec, actor
        )
