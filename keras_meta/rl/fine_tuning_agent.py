import tensorflow as tf
from tf_agents.agents import tf_agent

from keras_meta.rl import rollouts as rollouts_module
from keras_meta.rl.environments.task_family import rows_of
from keras_meta.rl.inner_training import collect_rows
from keras_meta.rl.inner_training_agent import InnerTrainingAgent
from keras_meta.rl.inner_training_agent import refuse_optimizer
from keras_meta.rl.meta_agent import MetaAgent


class FineTuningAgent(InnerTrainingAgent):
    """The baseline: an agent trained on all tasks, then on the new one.

    An agent of TF-Agents is trained as ever, on the rollouts of all tasks of
    a meta-batch together, without knowing which is which. In a new task it is
    trained on. What meta-learning is worth is what it adds to that.

    Where it was never trained, `evaluate()` and `adapt()` are training from
    scratch, the other baseline.

    Args:
        make_agent: A function without arguments that returns an agent of
            TF-Agents, each time one with networks and optimizers of its own:
            see `keras_meta.rl.agents`. Its optimizers are those that train.
        rollouts: Integer of 1 or more, the rollouts of each task in a step of
            training, and those of an inner iteration in a new task. Defaults
            to `10`.
        inner_iterations: Integer of 1 or more, how often rollouts are
            collected in a new task, and trained on. Defaults to `5`.
        gradient_steps: Integer of 1 or more, for agents off policy: the
            minibatches for each task, of a step of training and of an inner
            iteration. Defaults to `50`.
        minibatch_size: Integer of 1 or more, the size of these. Defaults to
            `64`.
        name: String.

    Raises:
        ValueError: Where an argument is not as described.
        TypeError: Where `make_agent` makes something else.

    Example:

    ```python
    environment = keras_meta.rl.environments.Bandits(arms=3, horizon=5)
    agent = keras_meta.rl.FineTuningAgent(
        lambda: keras_meta.rl.agents.dqn(environment, learning_rate=1e-2),
        rollouts=2,
        inner_iterations=2,
        gradient_steps=3,
    )
    # An outer step is `agent.train(agent.collect(environment, tasks))`.
    learn = tf.function(
        lambda tasks: agent.learn(environment, tasks), autograph=False
    )
    for tasks in environment.tasks(meta_batch_size=2).take(2):
        info = learn(tasks)
    ```
    """

    logged = ("return",)

    def __init__(
        self,
        make_agent,
        rollouts=10,
        inner_iterations=5,
        gradient_steps=50,
        minibatch_size=64,
        name=None,
    ):
        super().__init__(
            make_agent,
            None,
            rollouts,
            inner_iterations,
            gradient_steps,
            minibatch_size,
            name,
        )

    @MetaAgent.optimizer.setter
    def optimizer(self, optimizer):
        refuse_optimizer(self, optimizer)

    def collect(self, environment, tasks):
        """Collects rollouts in all tasks.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.

        Returns:
            A `Trajectory` of tensors `[tasks * rollouts, steps, ...]`.
        """
        self.check_environment(environment)
        count = tf.nest.flatten(tasks)[0].shape[0]
        rows = rows_of(environment, tasks, count * self.rollouts)
        return collect_rows(environment, self.collect_policy, rows)

    def _train(self, experience, weights=None):
        del weights
        training = self._shared()
        rows, steps = experience.step_type.shape
        # As many minibatches as if the tasks had been trained on by turns.
        _, loss = training.step(
            training.memory(1, rows, steps),
            0,
            experience,
            training.gradient_steps * rows // self.rollouts,
        )
        self.train_step_counter.assign_add(1)
        gained = tf.reduce_mean(rollouts_module.first_returns(experience))
        return tf_agent.LossInfo(loss, {"return": gained})
