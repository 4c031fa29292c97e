from keras_meta import inner_loop
from keras_meta.rl.fresh_weights import fresh_weights
from keras_meta.rl.maml_agent import MAMLAgent
from keras_meta.update_rules.coordinatewise_lstm import CoordinatewiseLSTM


class LearnedOptimizerAgent(MAMLAgent):
    """Learns to train policies: what is trained is the update rule alone.

    In each task a policy starts from new random weights, and is trained by a
    rule that is learned from many such trainings. The network lends its
    architecture and the numbers it was initialized with, which are put in
    another order for each task; they are not trained.

    With a rule that has nothing to learn, such as
    `keras_meta.update_rules.Adam`, it is what a learned one is to be compared
    with: it cannot be trained, but `evaluate()` and `adapt()` train policies
    from scratch.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        network: A `keras_meta.rl.KerasDistributionNetwork` that was not
            trained.
        optimizer: A `keras.optimizers.Optimizer` for the outer steps. `None`
            (the default) where `AgentModel.compile()` gives one.
        update_rule: A `keras_meta.update_rules.UpdateRule` that has trainable
            weights. `None` (the default) means `CoordinatewiseLSTM()`.
        inner_steps: Integer of 1 or more, the steps by which a policy is
            trained. Defaults to `5`.
        first_order: Boolean. Whether the gradients that the rule reads count
            as constants in the outer gradient, as in the paper. Defaults to
            `True`.
        every_step: Boolean. Whether the outer step improves the policies
            after each inner step, as in the paper, and not only after the
            last. Defaults to `True`.
        **kwargs: Further arguments of `MAMLAgent`, but for
            `inner_learning_rate` and `adapts`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation(horizon=10)
    agent = keras_meta.rl.LearnedOptimizerAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        keras_meta.rl.KerasDistributionNetwork(
            environment.observation_spec(),
            environment.action_spec(),
            keras_meta.backbones.mlp((2,), (16,), outputs=None),
        ),
        keras.optimizers.Adam(3e-3, global_clipnorm=1.0),
        inner_steps=2,
        rollouts=4,
        outer_update="reinforce",
    )
    learn = tf.function(
        lambda goals: agent.learn(environment, goals), autograph=False
    )
    for goals in environment.tasks(meta_batch_size=4).take(2):
        info = learn(goals)
    ```

    Reference:
        - [Andrychowicz et al., 2016](https://arxiv.org/abs/1606.04474)
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network,
        optimizer=None,
        update_rule=None,
        inner_steps=5,
        first_order=True,
        every_step=True,
        **kwargs,
    ):
        super().__init__(
            time_step_spec,
            action_spec,
            network,
            optimizer,
            update_rule=(
                CoordinatewiseLSTM() if update_rule is None else update_rule
            ),
            inner_steps=inner_steps,
            first_order=first_order,
            every_step=every_step,
            **kwargs,
        )

    @property
    def outer_variables(self):
        return self.update_rule.trainable_variables

    def initial_weights(self, values, start):
        del values
        return list(start)

    def _weights_at_start(self, count):
        weights = inner_loop.network_weights(self.network.model)
        return tuple(fresh_weights(weights, count))

    def _train(self, experience, weights=None):
        if not self.outer_variables:
            raise ValueError(
                "`update_rule` must have trainable weights to be trained. "
                f"Received: update_rule={self.update_rule!r} without any. Take "
                "for example `keras_meta.update_rules.CoordinatewiseLSTM()`."
            )
        return super()._train(experience, weights)
