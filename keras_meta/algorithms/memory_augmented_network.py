import keras
import tensorflow as tf

from keras_meta import arguments
from keras_meta.algorithms.amortized_model import beside_each_query
from keras_meta.algorithms.sequence_model import SequenceModel
from keras_meta.algorithms.sequence_model import padding_first


@keras.saving.register_keras_serializable(package="keras_meta")
class MemoryAugmentedNetwork(SequenceModel):
    """A recurrent learner with a memory, told each label one step late.

    An LSTM goes through the support set. At every step it gets an example and
    the label of the one before, reads what in its memory resembles the
    example, and writes: to the place it has just read, or to the one that has
    been used least. As a label comes late, it has to keep an example until it
    learns what it was. A query comes after the support set, each from the same
    state. **The order of the support set matters.**

    Two things differ from the paper: only the queries count in the loss, as
    in all algorithms here, where the paper's network answers at every step;
    and what a head looks for has a learned strength.

    Args:
        network: A built `keras.Model` from examples to embeddings
            `[batch, size]`, such as `keras_meta.backbones.conv4()`.
        outputs: Integer, the ways of every episode, or with `regression` the
            size of a target.
        regression: Boolean. Whether labels are targets, floats
            `[examples, outputs]`, and not classes. Defaults to `False`.
        units: Integer, the size of the LSTM. Defaults to `200`.
        slots: Integer, the places of the memory. Defaults to `128`.
        slot_size: Integer, what a place holds. Defaults to `40`.
        reads: Integer, how many places are read, and written, at a time.
            Defaults to `4`.
        usage_decay: Float above 0 and below 1, how much of the use of a place
            is remembered after a step. Defaults to `0.99`.
        max_supports: Integer, the longest support set. `None` (the default)
            means any.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where an argument is not as described, or a
            support set has more than `max_supports` examples.

    Example:

    ```python
    images = np.random.uniform(size=(400, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(40), 10)
    episodes = keras_meta.episodes.from_arrays(
        images, labels, ways=5, shots=1, queries=5, meta_batch_size=4
    )
    model = keras_meta.MemoryAugmentedNetwork(
        keras_meta.backbones.conv4(filters=16), outputs=5, slots=32
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(episodes, steps_per_epoch=2)
    ```

    Reference:
        - [Santoro et al., 2016](https://arxiv.org/abs/1605.06065)
    """

    def __init__(
        self,
        network,
        outputs,
        regression=False,
        units=200,
        slots=128,
        slot_size=40,
        reads=4,
        usage_decay=0.99,
        max_supports=None,
        **kwargs,
    ):
        super().__init__(network, outputs, regression, max_supports, **kwargs)
        for name, value in (
            ("units", units),
            ("slots", slots),
            ("slot_size", slot_size),
            ("reads", reads),
        ):
            arguments.check_positive_integer(name, value)
        if reads > slots:
            raise ValueError(
                "`reads` must not be more than `slots`. Received: "
                f"reads={reads} and slots={slots}."
            )
        arguments.check_positive_number("usage_decay", usage_decay)
        if usage_decay >= 1:
            raise ValueError(
                "`usage_decay` must be below 1, or every place is in use for "
                f"ever. Received: usage_decay={usage_decay}."
            )
        self.units = units
        self.slots = slots
        self.slot_size = slot_size
        self.reads = reads
        self.usage_decay = usage_decay
        dtype = self.variable_dtype
        cell = MemoryCell(
            units, slots, slot_size, reads, usage_decay, dtype=dtype
        )
        self.memory = self.add_layer(
            keras.layers.RNN(cell, return_state=True, dtype=dtype),
            (None, None, self.embedding_size + self.outputs),
        )
        self.head = self.add_layer(
            keras.layers.Dense(self.outputs, dtype=dtype, name="head"),
            (None, None, units + reads * slot_size),
        )

    def score(self, support, labels, weight, queries, training):
        weight, support, labels = padding_first(weight, support, labels)
        present = weight > 0
        labels = tf.where(present[..., None], labels, tf.zeros_like(labels))
        late = tf.pad(labels[:, :-1], [[0, 0], [1, 0], [0, 0]])
        _, *states = self.memory(
            tf.concat([support, late], axis=-1), mask=present, training=training
        )
        last = beside_each_query(labels[:, -1], queries)
        asked = tf.concat([queries, last], axis=-1)
        count = tf.shape(queries)[1]
        # Each query goes on from the same state, as the only one.
        states = [tf.repeat(state, count, axis=0) for state in states]
        answers, _ = self.memory.cell(
            tf.reshape(asked, [-1, asked.shape[-1]]), states, training=training
        )
        shape = tf.concat([tf.shape(queries)[:2], [answers.shape[-1]]], axis=0)
        return self.head(tf.reshape(answers, shape))

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "slots": self.slots,
            "slot_size": self.slot_size,
            "reads": self.reads,
            "usage_decay": self.usage_decay,
        }


@keras.saving.register_keras_serializable(package="keras_meta")
class MemoryCell(keras.layers.Layer):
    """One step of an LSTM with a memory of least recently used access.

    Its states, all flat: the two of the LSTM, what was read last, the memory,
    which places were read last, and how much each place is in use.

    Args:
        units: Integer, the size of the LSTM.
        slots: Integer, the places of the memory.
        slot_size: Integer, what a place holds.
        reads: Integer, how many places are read at a time.
        usage_decay: Float, how much of the use is remembered after a step.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, units, slots, slot_size, reads, usage_decay, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.slots = slots
        self.slot_size = slot_size
        self.reads = reads
        self.usage_decay = usage_decay
        self.controller = keras.layers.LSTMCell(units, dtype=self.dtype_policy)
        self.keys = keras.layers.Dense(
            reads * slot_size, activation="tanh", dtype=self.dtype_policy
        )
        # How sure a head is of what it looks for. (Cosines alone, which are at
        # most 2 apart, would read almost everything alike.)
        self.strengths = keras.layers.Dense(
            reads,
            activation="softplus",
            bias_initializer=keras.initializers.Constant(5.0),
            dtype=self.dtype_policy,
        )
        # How much a head writes where it last read, and how much where
        # nothing was needed for long.
        self.gates = keras.layers.Dense(
            reads, activation="sigmoid", dtype=self.dtype_policy
        )
        self.state_size = [
            units,
            units,
            reads * slot_size,
            slots * slot_size,
            reads * slots,
            slots,
        ]
        self.output_size = units + reads * slot_size

    def build(self, shape):
        read = self.reads * self.slot_size
        self.controller.build((*shape[:-1], shape[-1] + read))
        self.keys.build((*shape[:-1], self.units))
        self.strengths.build((*shape[:-1], self.units))
        self.gates.build((*shape[:-1], self.units))

    def get_initial_state(self, batch_size=None):
        # Cosines of an empty memory need a number that is not 0.
        starts = [0.0, 0.0, 0.0, 1e-6, 0.0, 0.0]
        return [
            tf.fill([batch_size, size], tf.cast(start, self.compute_dtype))
            for size, start in zip(self.state_size, starts)
        ]

    def call(self, inputs, states, training=False):
        hidden, carry, read, memory, attention, usage = states
        memory = tf.reshape(memory, [-1, self.slots, self.slot_size])
        attention = tf.reshape(attention, [-1, self.reads, self.slots])
        output, (hidden, carry) = self.controller(
            tf.concat([inputs, read], axis=-1),
            [hidden, carry],
            training=training,
        )
        keys = tf.reshape(self.keys(output), [-1, self.reads, self.slot_size])
        gates = self.gates(output)[..., None]

        # The heads share out the places that are used least.
        _, least = tf.math.top_k(-usage, self.reads)
        unused = tf.one_hot(least, self.slots, dtype=usage.dtype)
        writing = gates * attention + (1.0 - gates) * unused
        # Only the very least is wiped before it is written to.
        memory *= 1.0 - unused[:, 0, :, None]
        memory += tf.matmul(writing, keys, transpose_a=True)

        similarity = tf.matmul(_unit(keys), _unit(memory), transpose_b=True)
        strengths = self.strengths(output)[..., None]
        attention = tf.nn.softmax(strengths * similarity)
        read = tf.reshape(
            tf.matmul(attention, memory), [-1, self.reads * self.slot_size]
        )
        usage = self.usage_decay * usage + tf.reduce_sum(
            attention + writing, axis=1
        )
        states = [
            hidden,
            carry,
            read,
            tf.reshape(memory, [-1, self.slots * self.slot_size]),
            tf.reshape(attention, [-1, self.reads * self.slots]),
            usage,
        ]
        return tf.concat([output, read], axis=-1), states

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "slots": self.slots,
            "slot_size": self.slot_size,
            "reads": self.reads,
            "usage_decay": self.usage_decay,
        }


def _unit(vectors):
    return tf.math.l2_normalize(vectors, axis=-1, epsilon=1e-8)
