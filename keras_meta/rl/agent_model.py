import keras
import tensorflow as tf

from keras_meta.rl.environments.task_family import TaskFamily
from keras_meta.rl.meta_agent import MetaAgent


class AgentModel(keras.Model):
    """A meta-learning agent as a Keras model: `fit()` takes tasks.

    A batch of `fit()` is a batch of tasks: `environment.tasks()`. A training
    step collects rollouts in them, adapts, and takes the outer step, all in
    one graph. The logs tell the return before and after the adaptation; so
    does `evaluate()`, on test tasks.

    Args:
        agent: A `keras_meta.rl.MetaAgent`, such as `MAMLAgent`.
        environment: A `keras_meta.rl.environments.TaskFamily`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        TypeError: Where the agent or the environment is something else.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    policy = keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((2,), (64, 64), outputs=None),
    )
    agent = keras_meta.rl.MAMLAgent(
        environment.time_step_spec(), environment.action_spec(), policy
    )
    model = keras_meta.rl.AgentModel(agent, environment)
    model.compile(keras.optimizers.Adam(2e-3, global_clipnorm=1.0))
    model.fit(environment.tasks(20), steps_per_epoch=10, epochs=2)
    model.evaluate(environment.tasks(20, "test", batches=2))
    ```
    """

    def __init__(self, agent, environment, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(agent, MetaAgent):
            raise TypeError(
                "`agent` must be a `keras_meta.rl.MetaAgent`, such as "
                f"`MAMLAgent`. Received: agent={agent!r}. An agent of "
                "TF-Agents becomes one in a `ReptileAgent`."
            )
        if not isinstance(environment, TaskFamily):
            raise TypeError(
                "`environment` must be a `TaskFamily`, such as those of "
                "`keras_meta.rl.environments`. Received: environment="
                f"{environment!r}."
            )
        agent.prepare(environment)
        # In functions, where Keras does not look; what it shall save and
        # train are these models.
        self._agent = lambda: agent
        self._environment = lambda: environment
        self.agent_models = agent.models
        # Made before the first step, which would be traced once more if it
        # made them.
        names = ("loss", *agent.logged, "return_before", "return_after")
        self._logged = {name: keras.metrics.Mean(name) for name in names}
        self.built = True

    @property
    def agent(self):
        """The agent that is trained."""
        return self._agent()

    @property
    def environment(self):
        """The environments in which it is trained."""
        return self._environment()

    def compile(self, optimizer=None, jit_compile=False, **kwargs):
        """Configures the model for training.

        Args:
            optimizer: A `keras.optimizers.Optimizer`, or the name of one,
                for the outer steps. `None` (the default) means the agent's.
            jit_compile: Boolean, whether to use XLA. Defaults to `False`;
                under XLA no error tells that rewards, or the loss, are not
                finite.
            **kwargs: Arguments of `keras.Model.compile()`, such as
                `steps_per_execution`.
        """
        if optimizer is not None:
            optimizer = keras.optimizers.get(optimizer)
            self.agent.optimizer = optimizer
        super().compile(
            optimizer=self.agent.optimizer or "sgd",
            jit_compile=jit_compile,
            **kwargs,
        )

    def call(self, tasks):
        """Returns the returns in each task while the agent adapts.

        Args:
            tasks: Nested structure of tensors `[tasks, ...]`.

        Returns:
            Float tensor `[tasks, points]`; see `MetaAgent.returns()`.
        """
        return self.agent.returns(self.environment, tasks)

    def fit(self, x=None, *args, **kwargs):
        # Keras would warn that it does not shuffle a data set.
        kwargs.setdefault("shuffle", False)
        return super().fit(x, *args, **kwargs)

    def train_step(self, tasks):
        info = self.agent.learn(self.environment, tasks)
        return self._log({"loss": info.loss, **info.extra})

    def test_step(self, tasks):
        returns = tf.reduce_mean(self(tasks), axis=0)
        return self._log(
            {"return_before": returns[0], "return_after": returns[-1]}
        )

    def predict_step(self, tasks):
        return self(tasks)

    @property
    def metrics(self):
        return list(self._logged.values())

    def _log(self, values):
        for name, value in values.items():
            self._logged[name].update_state(value)
        return {name: self._logged[name].result() for name in values}
