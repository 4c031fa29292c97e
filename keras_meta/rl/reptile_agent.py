import tensorflow as tf
from tf_agents.agents import tf_agent

from keras_meta.rl.inner_training_agent import InnerTrainingAgent


class ReptileAgent(InnerTrainingAgent):
    """Reptile for agents: weights from which training on is quick.

    In each task an agent of TF-Agents is trained as ever, on a few rollouts
    at a time. The weights that all tasks share then move towards where the
    weights of the tasks have gone, in the mean. It takes any agent, on policy
    or off, with all its networks.

    Args:
        make_agent: A function without arguments that returns an agent of
            TF-Agents, each time one with networks and optimizers of its own:
            see `keras_meta.rl.agents`.
        optimizer: A `keras.optimizers.Optimizer` for the outer steps. With
            `SGD(rate)` the shared weights go that share of the way. `None`
            (the default) where `AgentModel.compile()` gives one.
        rollouts: Integer of 1 or more, the rollouts of an inner iteration.
            Defaults to `10`.
        inner_iterations: Integer of 1 or more, how often rollouts are
            collected in a task, and trained on. Defaults to `5`.
        gradient_steps: Integer of 1 or more, for agents off policy: the
            minibatches of an inner iteration. Defaults to `50`.
        minibatch_size: Integer of 1 or more, the size of these. Defaults to
            `64`.
        name: String.

    Raises:
        ValueError: Where an argument is not as described.
        TypeError: Where `make_agent` makes something else.

    Example:

    ```python
    environment = keras_meta.rl.environments.Bandits(arms=3, horizon=5)
    agent = keras_meta.rl.ReptileAgent(
        lambda: keras_meta.rl.agents.dqn(environment, learning_rate=1e-2),
        keras.optimizers.SGD(0.5),
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

    Reference:
        - [Nichol et al., 2018](https://arxiv.org/abs/1803.02999)
    """

    def collect(self, environment, tasks):
        """Trains in each task, from the shared weights.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.

        Returns:
            What `train()` takes: where the weights went in each task.
        """
        return self.train_in_tasks(
            environment, tasks, self.inner_iterations, every=False
        )

    def _train(self, experience, weights=None):
        del weights
        self.check_optimizer()
        # Against the way that the weights went in the tasks, in the mean.
        gradients = [
            weight - tf.reduce_mean(value, axis=0)
            for weight, value in zip(self.outer_variables, experience.values)
        ]
        self.optimizer.apply(gradients, self.outer_variables)
        self.train_step_counter.assign_add(1)
        returns = tf.reduce_mean(experience.returns, axis=0)
        logs = {"return_before": returns[0], "return_after": returns[-1]}
        return tf_agent.LossInfo(experience.loss, logs)
