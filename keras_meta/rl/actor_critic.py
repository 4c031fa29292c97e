import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import utils as network_utils
from tf_agents.trajectories import time_step as time_steps

from keras_meta import inner_loop
from keras_meta.gradients import dense_gradients
from keras_meta.rl import heads
from keras_meta.rl import networks
from keras_meta.rl.advantages import mean
from keras_meta.rl.agents import parts
from keras_meta.rl.environments.task_family import bounded
from keras_meta.rl.fast_weights_policy import forward


class ActorCritic:
    """An actor that a learned objective trains, and a critic, as in DDPG.

    All of it is pure: the weights are in a `Life`. Actions are counted in
    units of their bounds.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        objective: A `keras_meta.rl.LearnedObjective`.
        model: A built `keras.Model` for the actor, or `None`.
        critic_model: A built `keras.Model` for the critic, or `None`.
        actor_rule: The `keras_meta.update_rules.UpdateRule` of the actor.
        critic_rule: That of the critic.
        noise: Float, the deviation of actions while rollouts are collected.
        target_rate: Float, how far the targets follow in each step.

    Raises:
        ValueError: Where the actions are not one real vector with bounds, or
            a model does not fit the specifications.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        objective,
        model,
        critic_model,
        actor_rule,
        critic_rule,
        noise,
        target_rate,
    ):
        observation_spec = time_step_spec.observation
        self._action_spec = lambda: action_spec
        center, self._reach = heads.bounds(action_spec)
        if center is None or action_spec.shape.rank != 1:
            raise ValueError(
                "The actions must be one real vector with bounds. Received: "
                f"action_spec={action_spec}."
            )
        specs = (observation_spec, bounded(action_spec.shape, -1.0, 1.0))
        self.objective = objective
        self.actor = networks.KerasActorNetwork(
            observation_spec,
            action_spec,
            parts.features(model, observation_spec),
        )
        self.critic = networks.KerasCriticNetwork(
            specs, _critic_features(critic_model, specs)
        )
        self.exploring = networks.KerasNetwork(
            observation_spec, self.actor.model, head=self._around
        )
        self.actor_rule = actor_rule
        self.critic_rule = critic_rule
        actor_rule.build_for(self.actor.model.trainable_variables)
        critic_rule.build_for(self.critic.model.trainable_variables)
        self.noise = noise
        self.target_rate = target_rate

    def _around(self, outputs):
        center = self.actor.read(outputs)
        deviation = self.noise * self._reach * tf.ones_like(center)
        normal = tfp.distributions.Normal(center, deviation)
        return tfp.distributions.Independent(normal, 1)

    def in_units(self, action):
        """Returns actions in units of their bounds, and within them."""
        action = heads.in_units(action, self._action_spec())
        return tf.clip_by_value(action, -1.0, 1.0)

    def step(self, life, windows, learns):
        """Takes a gradient step in one life.

        Args:
            life: A `keras_meta.rl.lives.Life`.
            windows: A `keras_meta.rl.lives.Seen` of tensors `[windows,
                steps + 1, ...]`.
            learns: Boolean, whether gradients for the objective are wanted.

        Returns:
            A tuple: the `Life`; how bad the critic finds the actor after the
            step, the loss of the objective; and its gradients by the
            objective's weights, none if it does not learn.
        """
        # From the last step of a rollout to the first of the next one,
        # nothing happens.
        ended = tf.equal(windows.step_type[:, :-1], time_steps.StepType.LAST)
        happens = 1.0 - tf.cast(ended, tf.float32)
        now = tf.nest.map_structure(lambda leaf: leaf[:, :-1], windows)
        life = self._train_critic(life, windows, now, happens)
        inputs = self._inputs(life, windows, now, happens)

        def actor_loss(step, weights, state):
            del step
            inputs["policy_action"] = self._choose(weights, now.observation)
            return mean(self.objective(inputs), happens), state

        variables = [v.value for v in self.objective.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            adaptation = inner_loop.descend(
                actor_loss,
                life.actor,
                (),
                self.actor_rule,
                steps=1,
                constant_steps=0 if learns else 1,
                rule_state=life.actor_rule_state,
                first_step=life.steps,
            )
            actor = adaptation.weights_per_step[-1]
            action = self._choose(actor, now.observation)
            value = self._value(life.critic, now.observation, action)
            # In units of this task, since tasks differ in their rewards.
            spread = tf.math.reduce_std(inputs["value"]) + 1e-3
            loss = -mean(value, happens) / spread
        gradients = []
        if learns:
            gradients = dense_gradients(tape, loss, variables)
        life = life._replace(
            actor=actor,
            actor_rule_state=adaptation.rule_state,
            target_actor=self._following(life.target_actor, actor),
            target_critic=self._following(life.target_critic, life.critic),
            steps=life.steps + 1,
        )
        return tf.nest.map_structure(tf.stop_gradient, (life, loss, gradients))

    def _train_critic(self, life, windows, now, happens):
        after = tf.nest.map_structure(
            lambda leaf: leaf[:, 1:], windows.observation
        )
        action = self._choose(life.target_actor, after)
        value = self._value(life.target_critic, after, action)
        target = now.reward + self.objective.discount * now.discount * value

        def critic_loss(step, weights, state):
            del step
            value = self._value(weights, now.observation, now.action)
            return mean(tf.square(target - value), happens), state

        adaptation = inner_loop.descend(
            critic_loss,
            life.critic,
            (),
            self.critic_rule,
            steps=1,
            constant_steps=1,
            rule_state=life.critic_rule_state,
            first_step=life.steps,
        )
        return life._replace(
            critic=adaptation.weights_per_step[-1],
            critic_rule_state=adaptation.rule_state,
        )

    def _inputs(self, life, windows, now, happens):
        """Returns what the objective reads, but for the actor's actions."""
        action = self._choose(life.actor, windows.observation)
        value = self._value(life.target_critic, windows.observation, action)
        return {
            "action": now.action,
            "reward": now.reward,
            "value": value[:, :-1],
            "next_value": value[:, 1:],
            "goes_on": happens * now.discount,
        }

    def _choose(self, weights, observation):
        """Returns the actions of an actor, `[windows, steps, actions]`."""
        return _by_example(self.actor, weights, observation)

    def _value(self, weights, observation, action):
        """Returns the values of actions, `[windows, steps]`."""
        outputs = _by_example(self.critic, weights, (observation, action))
        return self.critic.read(outputs)

    def _following(self, target, weights):
        return [
            old + self.target_rate * (weight - old)
            for old, weight in zip(target, weights)
        ]


def _by_example(network, weights, inputs):
    """Runs a network's model on windows of steps."""
    squash = network_utils.BatchSquash(2)
    inputs = tf.nest.map_structure(squash.flatten, inputs)
    return squash.unflatten(forward(network, weights, inputs))


def _critic_features(model, specs):
    if model is not None:
        networks.check_model(model)
        size = sum(spec.shape.num_elements() for spec in specs)
        if tuple(model.input_shape) != (None, size):
            raise ValueError(
                "`critic_model` must take the observation and the action, "
                f"joined to one vector of {size}. Received: a model for "
                f"inputs of shape {model.input_shape}. Is it the critic of "
                "another agent?"
            )
    return parts.features(model, *specs)
