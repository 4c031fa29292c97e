import keras
import tensorflow as tf

from keras_meta.update_rules.base import UpdateRule


@keras.saving.register_keras_serializable(package="keras_meta")
class RuleOptimizer(keras.optimizers.Optimizer):
    """An optimizer of Keras that takes the steps of an update rule.

    It trains any model by a rule that was learned with another one. That
    needs a rule that treats each coordinate of a weight by itself, by what
    it learned for all of them, or one that learns nothing. What the rule
    remembers from step to step is kept in variables of the optimizer. What it
    has learned is copied when the optimizer is made, and is part of its
    configuration, so that files of a compiled model have it.

    Args:
        update_rule: A `keras_meta.update_rules.UpdateRule`, trained.
        learning_rate: Float, or a schedule of Keras, by which each move is
            multiplied. Defaults to `1.0`: the steps of the rule as they are.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as
            `clipnorm` and `name`.

    Raises:
        ValueError, TypeError: Where `update_rule` is no update rule, was
            built for no network yet, or learns for each weight of one
            network.

    Example:

    ```python
    rule = keras_meta.update_rules.CoordinatewiseLSTM()
    trained = keras_meta.LearnedOptimizer(network, rule, inner_loss="mse")
    other = keras_meta.backbones.mlp(hidden_units=(40,))
    other.compile(optimizer=keras_meta.RuleOptimizer(rule), loss="mse")
    ```

    Reference:
        - [Andrychowicz et al., 2016](https://arxiv.org/abs/1606.04474)
    """

    def __init__(self, update_rule, learning_rate=1.0, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        _check_rule(update_rule)
        self.update_rule = _copy(update_rule, update_rule.get_weights())

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        parts, structures = [], []
        for variable in variables:
            with tf.init_scope():
                state = self.update_rule.initial_state(
                    [tf.convert_to_tensor(variable)]
                )
            structures.append(state)
            parts.append(
                [self._add_state(part) for part in tf.nest.flatten(state)]
            )
        self._state = parts
        # Keras would wrap a list of structures, and change them by that.
        self._structure = lambda number: structures[number]

    def _add_state(self, part):
        return self.add_variable(
            shape=part.shape,
            initializer=lambda shape, dtype=None: tf.cast(part, dtype),
            dtype=part.dtype.name,
            name="rule_state",
        )

    def update_step(self, gradient, variable, learning_rate):
        number = self._get_variable_index(variable)
        weight = tf.convert_to_tensor(variable)
        # An embedding gives slices.
        gradient = tf.cast(tf.convert_to_tensor(gradient), weight.dtype)
        state = tf.nest.pack_sequence_as(
            self._structure(number),
            [tf.convert_to_tensor(part) for part in self._state[number]],
        )
        (moved,), state = self.update_rule.call(
            [weight], [gradient], state, tf.cast(self.iterations, tf.int32)
        )
        rate = tf.cast(learning_rate, weight.dtype)
        self.assign(variable, weight + rate * (moved - weight))
        for part, value in zip(self._state[number], tf.nest.flatten(state)):
            self.assign(part, value)

    def get_config(self):
        return {
            **super().get_config(),
            "update_rule": keras.saving.serialize_keras_object(
                self.update_rule
            ),
            "learned": [
                keras.saving.serialize_keras_object(value)
                for value in self.update_rule.get_weights()
            ],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        rule, learned = keras.saving.deserialize_keras_object(
            [config["update_rule"], config.pop("learned")], custom_objects
        )
        config["update_rule"] = _copy(rule, learned)
        return super().from_config(config, custom_objects)


def _copy(rule, learned):
    """Returns a rule of the same kind, with weights of its own."""
    copy = type(rule).from_config(rule.get_config())
    # Of any shape, as what is learned does not depend on it.
    copy.build_for([keras.Variable(0.0, name="any")])
    copy.set_weights(learned)
    return copy


def _check_rule(rule):
    if not isinstance(rule, UpdateRule):
        raise TypeError(
            "`update_rule` must be a `keras_meta.update_rules.UpdateRule`. "
            f"Received: update_rule={rule!r}."
        )
    if not rule.built:
        raise ValueError(
            "`update_rule` must have learned. Received: update_rule="
            f"{rule!r}, which was never handed to a model. Hand it to "
            "`keras_meta.LearnedOptimizer`, and train that."
        )
    if rule.weights and not rule.coordinatewise:
        shapes = [tuple(weight.shape) for weight in rule.weights]
        raise ValueError(
            "`update_rule` must treat each coordinate by itself, to train "
            "networks that it was not built for. Received: update_rule="
            f"{rule!r}, which learns for the weights of one network, by "
            f"numbers of the shapes {shapes}. Take for example "
            "`keras_meta.update_rules.CoordinatewiseLSTM()`."
        )
