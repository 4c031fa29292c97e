import tensorflow as tf
from tf_agents.networks import utils as network_utils
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as time_steps
from tf_agents.utils import nest_utils

from keras_meta.rl.networks import KerasModels
from keras_meta.rl.networks import check_model


class KerasRecurrentNetwork(KerasModels):
    """A Keras RNN cell and a model behind it, as a network of TF-Agents.

    Its state is cleared where a trajectory says that an episode of the
    environment begins, also in the middle of a sequence.

    Args:
        input_tensor_spec: The specification of an observation: one vector.
        cell: A cell of Keras, such as `keras.layers.GRUCell(64)`.
        model: A `keras.Model` built for the outputs of the cell.
        head: Optional function from the outputs of the model to what the
            network returns, such as a distribution.
        name: String.

    Raises:
        ValueError: Where an observation is not a vector, or the model is not
            built.

    Example:

    ```python
    environment = keras_meta.rl.environments.Bandits(arms=5)
    network = keras_meta.rl.KerasRecurrentNetwork(
        environment.observation_spec(),
        keras.layers.GRUCell(32),
        keras.Sequential([keras.Input((32,)), keras.layers.Dense(5)]),
    )
    time_step = environment.reset()
    outputs, state = network(time_step.observation, time_step.step_type)
    ```
    """

    def __init__(
        self,
        input_tensor_spec,
        cell,
        model,
        head=None,
        name="KerasRecurrentNetwork",
    ):
        check_model(model)
        shape = getattr(input_tensor_spec, "shape", None)
        if shape is None or shape.rank != 1:
            raise ValueError(
                "A recurrent network must have observations that are one "
                f"vector. Received: input_tensor_spec={input_tensor_spec}. "
                "Flatten or join the parts before."
            )
        sizes = tf.nest.flatten(cell.state_size)
        if not cell.built:
            cell.build((None, shape[0]))
        state_spec = [tensor_spec.TensorSpec([n], tf.float32) for n in sizes]
        super().__init__(input_tensor_spec, state_spec, [cell, model], name)
        self._head = head

    def call(self, inputs, step_type=None, network_state=(), training=False):
        cell, model = self._hidden.models
        rank = nest_utils.get_outer_rank(inputs, self.input_tensor_spec)
        if rank == 1:
            # One step each, of a batch.
            inputs = inputs[:, None]
            step_type = None if step_type is None else step_type[:, None]
        if network_state in ((), None, []):
            network_state = self.get_initial_state(tf.shape(inputs)[0])
        hidden, state = unroll(
            cell, tf.cast(inputs, tf.float32), step_type, network_state
        )
        squash = network_utils.BatchSquash(2)
        outputs = model(squash.flatten(hidden), training=training)
        outputs = tf.nest.map_structure(squash.unflatten, outputs)
        if rank == 1:
            outputs = tf.nest.map_structure(lambda leaf: leaf[:, 0], outputs)
        return self._head(outputs) if self._head else outputs, state


def unroll(cell, inputs, step_type, state):
    """Runs a cell along sequences.

    Args:
        cell: A built cell of Keras.
        inputs: Tensor `[batch, time, features]`.
        step_type: Tensor `[batch, time]` or `None`; where it says that an
            episode begins, the state is cleared before.
        state: List of tensors `[batch, size]`.

    Returns:
        A tuple: the outputs, `[batch, time, units]`, and the last state.
    """
    begins = tf.zeros(tf.shape(inputs)[:2], tf.bool)
    if step_type is not None:
        begins = tf.equal(step_type, time_steps.StepType.FIRST)
    kept = tf.transpose(tf.cast(~begins, tf.float32))[..., None]
    inputs = tf.transpose(inputs, [1, 0, 2])

    def step(inputs, kept, state):
        output, state = cell(inputs, [part * kept for part in state])
        return output, tf.nest.flatten(state)

    if inputs.shape[0] == 1:
        output, state = step(inputs[0], kept[0], list(state))
        return output[:, None], state
    # XLA makes one of the many small operations of a cell, forward and back.
    # It does so for the step alone: of a whole loop that has a gradient, it
    # copies what was kept of all steps in each. Eagerly it would be compiled
    # in each call.
    if not tf.executing_eagerly():
        step = tf.function(step, autograph=False, jit_compile=True)
    length = inputs.shape[0] or tf.shape(inputs)[0]
    # The first step outside of the loop tells the shape of an output.
    outputs = tf.TensorArray(
        tf.float32, length, element_shape=[None, output_size(cell)]
    )

    def body(number, outputs, state):
        output, state = step(inputs[number], kept[number], state)
        return number + 1, outputs.write(number, output), state

    _, outputs, state = tf.while_loop(
        lambda number, *_: number < length,
        body,
        (0, outputs, list(state)),
        maximum_iterations=length,
    )
    return tf.transpose(outputs.stack(), [1, 0, 2]), state


def output_size(cell):
    """Returns the size of what a cell of Keras gives out."""
    return (
        getattr(cell, "output_size", None)
        or tf.nest.flatten(cell.state_size)[0]
    )
