import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.maml_agent import MAMLAgent
from keras_meta.rl.networks import KerasDistributionNetwork
from keras_meta.rl.networks import check_model
from keras_meta.update_rules.gradient_descent import rule_or_descent


class CAVIAAgent(MAMLAgent):
    """CAVIA for policies: a task is a few numbers that the policy reads.

    What adapts in a task is a small context vector, joined to the observation.
    It starts at zero in every task, and inner steps move it along the policy
    gradient. All weights of the model are shared by all tasks, and trained by
    the outer steps alone. So little can adapt that the inner rate may be
    large, and that a few rollouts are hard to overfit.

    All else is as in `MAMLAgent`.

    Args:
        time_step_spec: The `time_step_spec()` of the environment.
        action_spec: The `action_spec()` of the environment.
        model: A built `keras.Model` to features `[examples, features]`, from
            vectors that hold all numbers of an observation, and after them
            the `context_size` numbers of the context.
        optimizer: A `keras.optimizers.Optimizer` for the outer steps. `None`
            (the default) where `AgentModel.compile()` gives one.
        context_size: Integer of 1 or more, the numbers of the context.
            Defaults to `5`.
        inner_learning_rate: Float above 0, the rate of plain gradient
            descent. Defaults to `1.0` where no `update_rule` is given.
        update_rule: How an inner step is taken: one of
            `keras_meta.update_rules`. Mutually exclusive with
            `inner_learning_rate`.
        **kwargs: Further arguments of `MAMLAgent`, but for `network` and
            `adapts`.

    Raises:
        ValueError, TypeError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    agent = keras_meta.rl.CAVIAAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        # Two numbers say where the point is, and five are the context.
        keras_meta.backbones.mlp((2 + 5,), (64, 64), outputs=None),
        keras.optimizers.Adam(2e-3, global_clipnorm=1.0),
        context_size=5,
    )
    learn = tf.function(
        lambda goals: agent.learn(environment, goals), autograph=False
    )
    for goals in environment.tasks(meta_batch_size=20).take(2):
        info = learn(goals)
    ```

    Reference:
        - [Zintgraf et al., 2019](https://arxiv.org/abs/1810.03642)
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        model,
        optimizer=None,
        context_size=5,
        inner_learning_rate=None,
        update_rule=None,
        **kwargs,
    ):
        arguments.check_positive_integer("context_size", context_size)
        self.context_size = int(context_size)
        observation_spec = time_step_spec.observation
        network = KerasDistributionNetwork(
            observation_spec,
            action_spec,
            _with_context(observation_spec, model, self.context_size),
        )
        super().__init__(
            time_step_spec,
            action_spec,
            network,
            optimizer,
            update_rule=rule_or_descent(update_rule, inner_learning_rate, 1.0),
            adapts=lambda layer: isinstance(layer, Context),
            **kwargs,
        )

    @property
    def outer_variables(self):
        # All but the context, the one weight that adapts.
        shared = [
            variable
            for variable, adapts in zip(
                self.network.model.trainable_variables, self.adapting
            )
            if not adapts
        ]
        return [*shared, *self.update_rule.trainable_variables]

    def initial_weights(self, values, start):
        values = iter(values)
        return [
            tf.zeros_like(weight) if adapts else next(values)
            for weight, adapts in zip(start, self.adapting)
        ]


@keras.saving.register_keras_serializable(package="keras_meta")
class Context(keras.layers.Layer):
    """Joins its weight, a vector of zeros, to each of a batch of vectors.

    Args:
        size: Integer, the numbers of the context.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = int(size)

    def build(self, input_shape):
        self.context = self.add_weight(
            shape=(self.size,), initializer="zeros", name="context"
        )

    def call(self, x):
        x = keras.ops.cast(x, self.compute_dtype)
        examples = keras.ops.shape(x)[0]
        context = keras.ops.broadcast_to(self.context, (examples, self.size))
        return keras.ops.concatenate([x, context], axis=-1)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def _with_context(observation_spec, model, size):
    """Returns a model of observations, whose context is a weight."""
    check_model(model)
    inputs = tf.nest.map_structure(
        lambda spec: keras.Input(spec.shape, dtype=spec.dtype.name),
        observation_spec,
    )
    flat = [keras.layers.Flatten()(leaf) for leaf in tf.nest.flatten(inputs)]
    joined = flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat)
    width = joined.shape[-1] + size
    expected = (None, width)
    # What a subclass takes shows when it is called.
    if getattr(model, "input_shape", expected) != expected:
        raise ValueError(
            f"`model` must take vectors of {width} numbers: the "
            f"{joined.shape[-1]} of an observation and the {size} of the "
            f"context. Received: a model of inputs {model.input_shape}. Build "
            f"it for inputs of shape ({width},)."
        )
    return keras.Model(inputs, model(Context(size, name="context")(joined)))
