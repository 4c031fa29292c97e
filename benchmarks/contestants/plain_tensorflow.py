"""What a TensorFlow user writes: a custom training loop with Keras layers.

Task by task, in one `tf.function`; Keras tells it so in its guides.
"""

import keras
import tensorflow as tf

from contestants import cases
from contestants.tensorflow_loop import Loop


def make(case, folder, steps_per_execution=1, jit_compile=False):
    network = make_network(case)
    variables = network.trainable_variables
    for variable, value in zip(variables, cases.weights(case)):
        variable.assign(value)
    algorithm = ALGORITHMS[case["algorithm"]]
    return Loop(
        case,
        variables,
        lambda batch: algorithm(case, network, batch),
        steps_per_execution,
        jit_compile,
    )


@keras.saving.register_keras_serializable(package="benchmarks")
class BatchStatistics(keras.layers.Layer):
    """Batch normalization by the statistics of the batch at hand.

    The second derivative of `keras.layers.BatchNormalization` leaves a part
    out: `tf.nn.moments` takes the mean in the variance for a constant.
    """

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones")
        self.offset = self.add_weight(shape=shape[-1:], initializer="zeros")

    def call(self, x):
        mean = tf.reduce_mean(x, (0, 1, 2))
        variance = tf.reduce_mean(tf.square(x - mean), (0, 1, 2))
        return tf.nn.batch_normalization(
            x, mean, variance, self.offset, self.scale, 0.001
        )


def make_network(case):
    layers, width = keras.layers, case["width"]
    if not cases.is_image(case):
        return keras.Sequential(
            [
                keras.Input((1,)),
                layers.Dense(width, activation="relu"),
                layers.Dense(width, activation="relu"),
                layers.Dense(1),
            ]
        )
    moves = case["algorithm"] == "prototypical"
    normalization = layers.BatchNormalization if moves else BatchStatistics
    network = keras.Sequential([keras.Input((cases.SIDE, cases.SIDE, 1))])
    for _ in range(4):
        network.add(layers.Conv2D(width, 3, padding="same", use_bias=False))
        network.add(normalization())
        network.add(layers.ReLU())
        network.add(layers.MaxPooling2D())
    network.add(layers.Flatten())
    if cases.outputs(case):
        network.add(layers.Dense(cases.outputs(case)))
    return network


def loss_of(case, network, weights, x, y):
    predictions, _ = network.stateless_call(
        weights, network.non_trainable_variables, x, training=True
    )
    if not cases.is_image(case):
        return tf.reduce_mean(tf.square(predictions - y))
    losses = keras.losses.sparse_categorical_crossentropy(
        y, predictions, from_logits=True
    )
    return tf.reduce_mean(losses)


def gradient_of(case, network, weights, x, y):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = loss_of(case, network, weights, x, y)
    return loss, tape.gradient(loss, weights)


def mean_over_tasks(results):
    losses, gradients = zip(*results)
    means = [tf.add_n(parts) / len(results) for parts in zip(*gradients)]
    return tf.add_n(losses) / len(results), means


def tasks_of(case, batch):
    for index in range(case["tasks"]):
        yield {name: values[index] for name, values in batch.items()}


def maml(case, network, batch):
    weights = [variable.value + 0.0 for variable in network.trainable_variables]

    def learn(task):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            current = weights
            for _ in range(case["inner_steps"]):
                _, gradients = gradient_of(
                    case, network, current, task["support_x"], task["support_y"]
                )
                if case["first_order"]:
                    gradients = [tf.stop_gradient(part) for part in gradients]
                current = [
                    weight - case["inner_learning_rate"] * gradient
                    for weight, gradient in zip(current, gradients)
                ]
            loss = loss_of(
                case, network, current, task["query_x"], task["query_y"]
            )
        return loss, tape.gradient(loss, weights)

    return mean_over_tasks([learn(task) for task in tasks_of(case, batch)])


def reptile(case, network, batch):
    start = [variable.value + 0.0 for variable in network.trainable_variables]
    size, drawn = case["ways"] * case["shots"], case["inner_batch"]

    def learn(task):
        current = start
        squares = [tf.zeros_like(weight) for weight in start]
        order = tf.random.shuffle(tf.range(size))
        for step in range(case["inner_steps"]):
            x, y = task["support_x"], task["support_y"]
            if drawn is not None:
                chosen = order[step * drawn : (step + 1) * drawn]
                x, y = tf.gather(x, chosen), tf.gather(y, chosen)
            loss, gradients = gradient_of(case, network, current, x, y)
            squares = [
                0.999 * square + 0.001 * tf.square(gradient)
                for square, gradient in zip(squares, gradients)
            ]
            rate = case["inner_learning_rate"]
            rate *= (1 - 0.999 ** (step + 1)) ** 0.5
            current = [
                weight - rate * gradient / (tf.sqrt(square) + 1e-7)
                for weight, gradient, square in zip(current, gradients, squares)
            ]
        return loss, [old - new for old, new in zip(start, current)]

    return mean_over_tasks([learn(task) for task in tasks_of(case, batch)])


def prototypical(case, network, batch):
    ways, shots = case["ways"], case["shots"]
    x = tf.concat([batch["support_x"][0], batch["query_x"][0]], 0)
    with tf.GradientTape() as tape:
        embeddings = network(x, training=True)
        support, query = tf.split(embeddings, [ways * shots, -1])
        prototypes = tf.math.unsorted_segment_mean(
            support, batch["support_y"][0], ways
        )
        differences = query[:, None] - prototypes
        logits = -tf.reduce_sum(tf.square(differences), axis=-1)
        loss = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(
                batch["query_y"][0], logits, from_logits=True
            )
        )
    variables = [variable.value for variable in network.trainable_variables]
    return loss, tape.gradient(loss, variables)


ALGORITHMS = {
    "maml": maml,
    "reptile": reptile,
    "prototypical": prototypical,
}
