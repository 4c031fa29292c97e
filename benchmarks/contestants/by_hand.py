"""The same mathematics, written by hand for each case in TensorFlow.

There is nothing between the formulas and the graph: weights are a list of
tensors, and networks are functions of it. What the package adds to that is
its overhead. Batch normalization is the operation that the package takes.
"""

import functools

import keras
import tensorflow as tf

from contestants import cases
from contestants import clock
from contestants.tensorflow_loop import Loop
from keras_meta import fused_normalization

# That of Keras.
EPSILON = 0.001

# What `fit()` logs of Reptile, and a loop by hand need not compute.
LOGS = ("loss", "support_loss_before", "loss_before", "support_loss_after")


def make(case, folder, steps_per_execution=1, jit_compile=False, logs=False):
    if case["algorithm"] == "answer":
        return Answer(case, jit_compile)
    variables = [
        keras.Variable(value, dtype=value.dtype)
        for value in cases.weights(case)
    ]
    algorithm = ALGORITHMS[case["algorithm"]]
    logged = None
    if logs:
        logged = tf.Variable(tf.zeros([len(LOGS)], variables[0].dtype))
        algorithm = functools.partial(algorithm, logged=logged)
    moving = None
    if case["algorithm"] == "prototypical":
        zeros = tf.zeros([4, case["width"]], variables[0].dtype)
        moving = tf.Variable(zeros), tf.Variable(zeros + 1.0)

    def loss_and_gradients(batch):
        weights = [tf.convert_to_tensor(variable) for variable in variables]
        loss, gradients, statistics = algorithm(case, weights, batch)
        for variable, values in zip(moving or (), zip(*statistics)):
            variable.assign_add(0.01 * (tf.stack(values) - variable))
        return loss, gradients

    loop = Loop(
        case, variables, loss_and_gradients, steps_per_execution, jit_compile
    )
    loop.logged = logged
    return loop


def normalize(x, scale, offset, statistics=None):
    """Returns normalized inputs, and the statistics that were used."""
    if statistics is None and x.dtype == tf.float32:
        x, *statistics = fused_normalization.normalize(
            x, scale, offset, EPSILON
        )
        return x, statistics
    if statistics is None:
        # Not `tf.nn.moments`, whose second derivative leaves a part out.
        mean = tf.reduce_mean(x, (0, 1, 2))
        statistics = mean, tf.reduce_mean(tf.square(x - mean), (0, 1, 2))
    mean, variance = statistics
    factor = tf.math.rsqrt(variance + EPSILON) * scale
    return (x - mean) * factor + offset, statistics


def conv4(weights, x, statistics=(None,) * 4):
    used = []
    for block in range(4):
        kernel, scale, offset = weights[3 * block : 3 * block + 3]
        x = tf.nn.conv2d(x, kernel, 1, "SAME")
        x, found = normalize(x, scale, offset, statistics[block])
        used.append(found)
        x = tf.nn.relu(tf.nn.max_pool2d(x, 2, 2, "VALID"))
    x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
    if len(weights) > 12:
        x = x @ weights[12] + weights[13]
    return x, used


def mlp(weights, x):
    for layer in range(2):
        x = tf.nn.relu(x @ weights[2 * layer] + weights[2 * layer + 1])
    return x @ weights[4] + weights[5]


def loss_of(case, weights, x, y):
    if not cases.is_image(case):
        return tf.reduce_mean(tf.square(mlp(weights, x) - y))
    logits, _ = conv4(weights, x)
    return cross_entropy(y, logits)


def cross_entropy(y, logits):
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    )


def gradient_of(case, weights, x, y):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = loss_of(case, weights, x, y)
    return loss, tape.gradient(loss, weights)


def adapt(case, weights, task):
    for _ in range(case["inner_steps"]):
        _, gradients = gradient_of(
            case, weights, task["support_x"], task["support_y"]
        )
        weights = [
            weight - case["inner_learning_rate"] * gradient
            for weight, gradient in zip(weights, gradients)
        ]
    return weights


def map_tasks(case, function, weights, batch):
    """Applies `function` to each task, and returns the means over them."""
    if cases.is_image(case):
        dtype = weights[0].dtype
        signature = (dtype, [dtype] * len(weights))
        results = tf.map_fn(function, batch, fn_output_signature=signature)
    else:
        results = tf.vectorized_map(function, batch)
    loss, gradients = tf.nest.map_structure(
        lambda values: tf.reduce_mean(values, 0), results
    )
    return loss, gradients, ()


def maml(case, weights, batch):
    def outer_gradient(task):
        query = task["query_x"], task["query_y"]
        if case["first_order"]:
            # That at the adapted weights is all there is.
            return gradient_of(case, adapt(case, weights, task), *query)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = loss_of(case, adapt(case, weights, task), *query)
        return loss, tape.gradient(loss, weights)

    return map_tasks(case, outer_gradient, weights, batch)


def reptile(case, weights, batch, logged=None):
    size = case["ways"] * case["shots"]
    drawn = case["inner_batch"]
    if drawn is not None:
        keys = tf.random.uniform([case["tasks"], size])
        count = case["inner_steps"] * drawn
        order = tf.argsort(keys)[:, :count]
        order = tf.reshape(order, [-1, case["inner_steps"], drawn])
        batch = {**batch, "order": order}
    if logged is not None:
        batch = {**batch, "number": tf.range(case["tasks"])}
    beta, rate = 0.999, case["inner_learning_rate"]

    def outer_gradient(task):
        current = weights
        squares = [tf.zeros_like(weight) for weight in weights]
        losses = []
        for step in range(case["inner_steps"]):
            x, y = task["support_x"], task["support_y"]
            if drawn is not None:
                x = tf.gather(x, task["order"][step])
                y = tf.gather(y, task["order"][step])
            with tf.GradientTape() as tape:
                tape.watch(current)
                logits, statistics = conv4(current, x)
                losses.append(cross_entropy(y, logits))
            gradients = tape.gradient(losses[-1], current)
            squares = [
                square + (1 - beta) * (tf.square(gradient) - square)
                for square, gradient in zip(squares, gradients)
            ]
            scaled = rate * (1 - beta ** (step + 1)) ** 0.5
            current = [
                weight - scaled * gradient / (tf.sqrt(square) + 1e-7)
                for weight, gradient, square in zip(current, gradients, squares)
            ]
        moved = [old - new for old, new in zip(weights, current)]
        if logged is None:
            return losses[-1], moved
        answers, _ = conv4(current, task["query_x"], statistics)
        # One task alone is observed, as in `fit()`.
        observed = tf.cond(
            task["number"] == 0,
            lambda: observe(task, x, y, current),
            lambda: tf.zeros([2], losses[0].dtype),
        )
        logs = cross_entropy(task["query_y"], answers), losses[0]
        return tf.concat([logs, case["tasks"] * observed], 0), moved

    def observe(task, x, y, adapted):
        _, statistics = conv4(weights, x)
        before, _ = conv4(weights, task["query_x"], statistics)
        return tf.stack(
            [
                cross_entropy(task["query_y"], before),
                loss_of(case, adapted, x, y),
            ]
        )

    loss, gradients, _ = map_tasks(case, outer_gradient, weights, batch)
    if logged is not None:
        logged.assign(loss)
        loss = loss[0]
    return loss, gradients, ()


def prototypical(case, weights, batch):
    ways, shots = case["ways"], case["shots"]
    x = tf.concat([batch["support_x"][0], batch["query_x"][0]], 0)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        embeddings, statistics = conv4(weights, x)
        support = embeddings[: ways * shots]
        query = embeddings[ways * shots :]
        # The classes stand in order, as many examples each.
        prototypes = tf.reduce_mean(tf.reshape(support, [ways, shots, -1]), 1)
        distances = (
            tf.reduce_sum(tf.square(query), 1)[:, None]
            + tf.reduce_sum(tf.square(prototypes), 1)
            - 2.0 * tf.matmul(query, prototypes, transpose_b=True)
        )
        loss = cross_entropy(batch["query_y"][0], -distances)
    return loss, tape.gradient(loss, weights), statistics


ALGORITHMS = {
    "maml": maml,
    "reptile": reptile,
    "prototypical": prototypical,
}


def answer(case, weights, task):
    """Adapts to a task and answers its query."""
    weights = adapt(case, weights, task)
    if not cases.is_image(case):
        return mlp(weights, task["query_x"])
    _, statistics = conv4(weights, task["support_x"])
    return conv4(weights, task["query_x"], statistics)[0]


class Answer:
    granularity = 1

    def __init__(self, case, jit_compile):
        data = cases.data(case)
        self.tasks = [
            {
                name: tf.constant(values[number, 0])
                for name, values in data.items()
            }
            for number in range(cases.BATCHES)
        ]
        weights = [tf.constant(value) for value in cases.weights(case)]
        self.answer = tf.function(
            functools.partial(answer, case, weights), jit_compile=jit_compile
        )
        self.count = 0

    def check(self):
        return 0.0, [self.answer(self.tasks[0]).numpy()]

    def run(self, steps, blocks):
        return clock.durations(self.step, steps, blocks)

    def step(self):
        self.count += 1
        self.answer(self.tasks[self.count % len(self.tasks)]).numpy()
