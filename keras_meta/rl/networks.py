"""Keras 3 models as networks of TF-Agents."""

import keras
import numpy as np
import tensorflow as tf
from tf_agents.networks import network
from tf_agents.networks import utils as network_utils
from tf_agents.utils import nest_utils

from keras_meta.rl import heads


class _Hidden:
    """Holds a Keras 3 model, so that Keras 2 does not look into it."""

    def __init__(self, models):
        self.models = models


class _Variables(tf.Module):
    """Holds variables of TensorFlow, for checkpoints and SavedModels."""

    def __init__(self, variables):
        super().__init__()
        self.held = variables


class KerasModels(network.Network):
    """What networks around Keras 3 models share: the weights."""

    def __init__(self, input_tensor_spec, state_spec, models, name):
        super().__init__(input_tensor_spec, state_spec, name)
        self._hidden = _Hidden(models)
        self._held = _Variables(_raw(self._of_models("variables")))
        self.built = True

    @property
    def models(self):
        """The Keras models and layers that the network calls."""
        return list(self._hidden.models)

    def _of_models(self, attribute):
        lists = [getattr(model, attribute) for model in self._hidden.models]
        return [variable for variables in lists for variable in variables]

    # Keras 2 asks for these, and would find nothing: the weights of Keras 3
    # are no variables of TensorFlow, but hold one each.

    @property
    def trainable_weights(self):
        return _raw(self._of_models("trainable_variables"))

    @property
    def non_trainable_weights(self):
        return _raw(self._of_models("non_trainable_variables"))

    @property
    def weights(self):
        return _raw(self._of_models("variables"))

    @property
    def variables(self):
        return self.weights

    @property
    def trainable_variables(self):
        return self.trainable_weights

    @property
    def layers(self):
        return self._of_models("layers")

    def copy(self, **kwargs):
        """Returns a copy with weights of its own, newly drawn.

        Args:
            **kwargs: Arguments of the constructor to replace.

        Returns:
            A network of the same class.
        """
        settings = {**self._saved_kwargs, **kwargs}
        for key, value in self._saved_kwargs.items():
            if key not in kwargs and isinstance(value, keras.layers.Layer):
                settings[key] = _clone(value)
        return type(self)(**settings)

    def copy_with_weights(self):
        """Copies the network and the values of its weights.

        Returns:
            A network of the same class, with weights of its own.
        """
        network = self.copy()
        for variable, value in zip(network.variables, self.variables):
            variable.assign(value)
        return network


class KerasNetwork(KerasModels):
    """A Keras model as a network of TF-Agents.

    With it any agent of TF-Agents trains Keras 3 models: their weights are
    found by optimizers, `common.Checkpointer` and `PolicySaver`, and copies
    (target networks) have weights of their own. Whatever leading axes there
    are (a batch, or a batch of sequences), the model sees one.

    The subclasses put the last layer behind the model: `KerasValueNetwork`,
    `KerasQNetwork`, `KerasActorNetwork`, `KerasCriticNetwork` and
    `KerasDistributionNetwork`.

    Args:
        input_tensor_spec: Nested structure of `tf.TypeSpec`, one observation
            (or what else the model gets), without an axis of examples.
        model: A built `keras.Model` that takes a batch of such.
        head: Optional function from the outputs of the model to what the
            network returns, such as a distribution.
        name: String.

    Raises:
        ValueError: Where the model is not built.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    network = keras_meta.rl.KerasNetwork(
        environment.observation_spec(),
        keras_meta.backbones.mlp((2,), (64, 64), outputs=3),
    )
    outputs, _ = network(environment.reset().observation)  # [batch, 3]
    ```
    """

    def __init__(
        self, input_tensor_spec, model, head=None, name="KerasNetwork"
    ):
        check_model(model)
        super().__init__(input_tensor_spec, (), [model], name)
        self._head = head

    @property
    def model(self):
        """The Keras model that the network calls."""
        return self._hidden.models[0]

    def call(self, inputs, step_type=None, network_state=(), training=False):
        del step_type
        squash = network_utils.BatchSquash(
            nest_utils.get_outer_rank(inputs, self.input_tensor_spec)
        )
        outputs = self.model(
            tf.nest.map_structure(squash.flatten, inputs), training=training
        )
        outputs = tf.nest.map_structure(squash.unflatten, outputs)
        return self.read(outputs), network_state

    def read(self, outputs):
        """Returns what the network makes of the outputs of its model.

        Args:
            outputs: What `model` returned, with any leading axes.

        Returns:
            A tensor, or a distribution.
        """
        return outputs if self._head is None else self._head(outputs)


class KerasValueNetwork(KerasNetwork):
    """The value of an observation: a model and a dense layer of one unit.

    Args:
        input_tensor_spec: The specification of an observation.
        model: A built `keras.Model` from observations to features
            `[examples, features]`.
        name: String.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    value = keras_meta.rl.KerasValueNetwork(
        environment.observation_spec(),
        keras_meta.backbones.mlp((2,), (64, 64), outputs=None),
    )
    values, _ = value(environment.reset().observation)  # [batch]
    ```
    """

    def __init__(self, input_tensor_spec, model, name="KerasValueNetwork"):
        check_model(model)
        whole = _with_heads(input_tensor_spec, model, [keras.layers.Dense(1)])
        super().__init__(input_tensor_spec, whole, name=name)

    def read(self, outputs):
        return tf.squeeze(outputs, -1)


class KerasQNetwork(KerasNetwork):
    """The values of all actions: a model and a dense layer of a unit each.

    Args:
        input_tensor_spec: The specification of an observation.
        action_spec: The specification of the action, one integer from 0.
        model: A built `keras.Model` from observations to features
            `[examples, features]`.
        name: String.

    Raises:
        ValueError: Where the actions are not one integer from 0.

    Example:

    ```python
    environment = keras_meta.rl.environments.Bandits(arms=5)
    network = keras_meta.rl.KerasQNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((1,), (64, 64), outputs=None),
    )
    values, _ = network(environment.reset().observation)  # [batch, 5]
    ```
    """

    def __init__(
        self, input_tensor_spec, action_spec, model, name="KerasQNetwork"
    ):
        check_model(model)
        whole = _with_heads(
            input_tensor_spec,
            model,
            [keras.layers.Dense(heads.choices(action_spec))],
        )
        super().__init__(input_tensor_spec, whole, name=name)


class KerasActorNetwork(KerasNetwork):
    """One action for an observation, within its bounds, for DDPG and TD3.

    Args:
        input_tensor_spec: The specification of an observation.
        action_spec: The specification of the action: real, with bounds.
        model: A built `keras.Model` from observations to features
            `[examples, features]`.
        name: String.

    Raises:
        ValueError: Where the actions are integers, or have no bounds.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    actor = keras_meta.rl.KerasActorNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((2,), (64, 64), outputs=None),
    )
    actions, _ = actor(environment.reset().observation)  # [batch, 2]
    ```
    """

    def __init__(
        self, input_tensor_spec, action_spec, model, name="KerasActorNetwork"
    ):
        check_model(model)
        self._center, self._reach = heads.bounds(action_spec)
        if self._center is None:
            raise ValueError(
                "An actor of one action must have real actions with bounds. "
                f"Received: action_spec={action_spec}."
            )
        shape = tuple(action_spec.shape)
        layers = keras.Sequential(
            [
                keras.layers.Dense(int(np.prod(shape)), activation="tanh"),
                keras.layers.Reshape(shape),
            ]
        )
        super().__init__(
            input_tensor_spec,
            _with_heads(input_tensor_spec, model, [layers]),
            name=name,
        )

    def read(self, outputs):
        return self._center + self._reach * outputs


class KerasCriticNetwork(KerasNetwork):
    """The value of an action in an observation, for DDPG, TD3 and SAC.

    Args:
        input_tensor_spec: A tuple, the specifications of an observation and
            of an action, both of them vectors.
        model: A built `keras.Model` from the two, joined to one vector, to
            features `[examples, features]`.
        name: String.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    critic = keras_meta.rl.KerasCriticNetwork(
        (environment.observation_spec(), environment.action_spec()),
        keras_meta.backbones.mlp((4,), (64, 64), outputs=None),
    )
    ```
    """

    def __init__(self, input_tensor_spec, model, name="KerasCriticNetwork"):
        check_model(model)
        inputs = [
            keras.Input(spec.shape, dtype=spec.dtype.name)
            for spec in tf.nest.flatten(input_tensor_spec)
        ]
        joined = keras.layers.Concatenate()(
            [keras.layers.Flatten()(tensor) for tensor in inputs]
        )
        value = keras.layers.Dense(1)(model(joined))
        whole = keras.Model(tuple(inputs), value)
        super().__init__(input_tensor_spec, whole, name=name)

    def read(self, outputs):
        return tf.squeeze(outputs, -1)


class KerasDistributionNetwork(KerasNetwork):
    """A distribution of actions: a policy, for PPO, REINFORCE and MAML.

    Integer actions get a categorical distribution; real ones a normal
    distribution whose mean depends on the observation and whose standard
    deviation is a weight. Mean and deviation are counted in units of the
    action's bounds, where it has any: 0 is the middle, and 1 from there to a
    bound. So one network and one rate serve actions of any scale. With
    `"squashed"`, for SAC, the deviation depends on the observation, too, and
    what is drawn is squashed into the bounds by a tanh.

    Args:
        input_tensor_spec: The specification of an observation.
        action_spec: The specification of the action.
        model: A built `keras.Model` from observations to features
            `[examples, features]`.
        head: `"categorical"`, `"normal"`, `"squashed"`, or `"auto"` (the
            default), which is one of the first two, as the actions are.
        deviation: Float above 0, where the standard deviation starts.
            Defaults to `1.0`.
        name: String.

    Raises:
        ValueError: Where the head does not fit the actions.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation()
    policy = keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((2,), (64, 64), outputs=None),
    )
    distribution, _ = policy(environment.reset().observation)
    actions = distribution.sample()  # [batch, 2]
    ```
    """

    def __init__(
        self,
        input_tensor_spec,
        action_spec,
        model,
        head="auto",
        deviation=1.0,
        name="KerasDistributionNetwork",
    ):
        check_model(model)
        layers, self._read = heads.policy_head(action_spec, head, deviation)
        super().__init__(
            input_tensor_spec,
            _with_heads(input_tensor_spec, model, layers),
            name=name,
        )
        self._head_layers = _Hidden(layers)

    @property
    def head_variables(self):
        """The Keras variables of the layers that are put on the features."""
        layers = self._head_layers.models
        return [variable for layer in layers for variable in layer.variables]

    def read(self, outputs):
        return self._read(outputs)


def check_model(model):
    """Raises where `model` is not a built Keras 3 model."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a `keras.Model` of Keras 3. Received: "
            f"model={model!r}. A network of TF-Agents or a model of "
            "`tf.keras` is none."
        )
    if not model.built:
        raise ValueError(
            "`model` must be built. Received: a model without weights, "
            f"{model!r}. Start it with `keras.Input(shape)`, or call it once."
        )


def _with_heads(input_tensor_spec, model, heads):
    """Returns `model` with one or several layers on its features."""
    inputs = tf.nest.map_structure(
        lambda spec: keras.Input(spec.shape, dtype=spec.dtype.name),
        input_tensor_spec,
    )
    features = model(inputs)
    outputs = [head(features) for head in heads]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


def _clone(layer):
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(layer)
    return type(layer).from_config(layer.get_config())


def _raw(variables):
    """Returns the variables of TensorFlow in variables of Keras."""
    return [
        variable.value if isinstance(variable, keras.Variable) else variable
        for variable in variables
    ]
