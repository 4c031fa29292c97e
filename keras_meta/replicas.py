"""Training on several devices and machines, by `tf.distribute`."""

import contextlib
import functools
import itertools

import tensorflow as tf

SUPPORTED = (
    "MirroredStrategy",
    "MultiWorkerMirroredStrategy",
    "OneDeviceStrategy",
)


def check_strategy():
    """Raises an error where the strategy of the scope is not supported."""
    if not tf.distribute.has_strategy():
        return
    strategy = tf.distribute.get_strategy()
    classes = tuple(getattr(tf.distribute, name) for name in SUPPORTED)
    if not isinstance(strategy, classes):
        raise ValueError(
            "The strategy of `tf.distribute` must be one of "
            f"{', '.join(SUPPORTED)}. "
            f"Received: a model made in the scope of a "
            f"`{type(strategy).__name__}`. Make it in the scope of a "
            "`MirroredStrategy` for the devices of one machine, or of a "
            "`MultiWorkerMirroredStrategy` for several machines."
        )


def count():
    """Returns how many replicas take a step together, 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def check_scope(made_in, jit_compile):
    """Raises an error where a model cannot be run as it was made.

    Args:
        made_in: The strategy in whose scope the model was made, or `None`.
        jit_compile: Boolean. Whether its steps are compiled by XLA.
    """
    if made_in is not None and made_in.num_replicas_in_sync > 1 and jit_compile:
        raise ValueError(
            "`jit_compile` must not be `True` with several replicas, whose "
            "variables XLA cannot reach from each other's devices. Received: "
            f"jit_compile=True and {made_in.num_replicas_in_sync} replicas. "
            "Leave it out of `compile()`."
        )
    if tf.distribute.has_strategy() and made_in is None:
        raise ValueError(
            "A model must be made in the scope of the strategy that it is "
            "trained with, or its weights are not there on every replica. "
            f"Received: the scope of a "
            f"`{type(tf.distribute.get_strategy()).__name__}`, and a model "
            "that was made outside of it. Make the network, the model and the "
            "optimizer `with strategy.scope():`, and call `fit()` as always."
        )


def check_shares(x, batch_size, replicas, training):
    """Checks that replicas can share the tasks of every batch.

    Args:
        x: What `fit()` or its like is given.
        batch_size: Integer, how many tasks of arrays make a batch.
        replicas: Integer, how many replicas there are.
        training: Boolean. Whether the shares must be equal, since the mean of
            the replicas' gradients is taken. Else each must have a task.

    Returns:
        `x`; or, where it is a data set that does not tell the size of its
        batches, one that raises at a batch that cannot be shared.
    """
    if replicas == 1:
        return x
    if isinstance(x, tf.data.Dataset):
        size = tf.nest.flatten(x.element_spec)[0].shape[:1]
        if not size.is_fully_defined():
            checked = functools.partial(_checked, replicas, training)
            return x.map(tf.autograph.experimental.do_not_convert(checked))
        sizes = {size[0]}
    elif hasattr(tf.nest.flatten(x)[0], "shape"):
        size = len(tf.nest.flatten(x)[0])
        sizes = {min(size, batch_size), size % batch_size} - {0}
    else:
        sizes = ()
    for size in sizes:
        if not can_be_shared(size, replicas, training):
            raise ValueError(_share_message(size, replicas, training))
    return x


def _checked(replicas, training, *batch):
    size = tf.shape(tf.nest.flatten(batch)[0])[0]
    message = _share_message("the size below", replicas, training)
    check = tf.Assert(can_be_shared(size, replicas, training), [message, size])
    with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, batch)


def can_be_shared(size, replicas, training):
    """Returns whether replicas get equal shares of a batch, or some share."""
    if training:
        return size % replicas == 0
    # Each gets as many as the first one, until there are no more.
    return -(-size // replicas) * (replicas - 1) < size


def _share_message(size, replicas, training):
    must = "divide by the number of replicas, since these count the same"
    if not training:
        must = "be enough for each replica to have one"
    return (
        f"The tasks of a meta-batch must {must}. Received: a meta-batch of "
        f"{size} for {replicas} replicas. Make `meta_batch_size`, which "
        f"counts the tasks of all replicas, a multiple of {replicas}, and the "
        "number of `episodes`, too."
    )


def unscale(loss):
    """Undoes Keras's division of a loss by the number of replicas."""
    return loss * count() if count() > 1 else loss


def own_share(draw, tasks):
    """Draws for the tasks of all replicas, and returns those of this one.

    All replicas have the same seeds. So they would draw the same numbers, and
    their tasks would not be those of one joined meta-batch.

    Args:
        draw: Function from a number of tasks to a tensor `[tasks, ...]`.
        tasks: Integer, or integer tensor, the tasks of this replica, as many
            as of any other.

    Returns:
        Tensor `[tasks, ...]`.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return draw(tasks)
    drawn = draw(tasks * context.num_replicas_in_sync)
    first = tf.cast(context.replica_id_in_sync_group, tf.int32) * tasks
    return drawn[first : first + tasks]


@contextlib.contextmanager
def naming_lost_workers():
    """Says in words that a worker was lost, where TensorFlow does not."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = str(error).partition("Collective ops is aborted by: ")[2]
        if not reason:
            raise
        raise RuntimeError(
            "All workers must stay until the training ends. Received: a "
            f"connection that broke, {reason.splitlines()[0]!r}. Look at what "
            "the other workers say, since one of them was killed or raised an "
            "error, and start all of them again. With "
            "`keras.callbacks.BackupAndRestore` they go on from the last "
            "epoch."
        ) from error


def first(strategy, values):
    """Returns what the first replica of this machine has.

    Args:
        strategy: A strategy of `tf.distribute`.
        values: Nested structure, the values of each replica.

    Returns:
        Nested structure of tensors.
    """
    return tf.nest.map_structure(
        lambda leaf: strategy.experimental_local_results(leaf)[0], values
    )


def with_steps_apart(function):
    """Has Keras take the steps of an execution one by one.

    The loop that it makes of several is a graph of several devices, and there
    the loops within a step have no inputs. With any iterator but its own,
    Keras starts each step from Python.

    Args:
        function: What Keras has made of a step.

    Returns:
        A function of an iterator, too.
    """

    def function_of_batches(iterator):
        # The first comes first, since Keras takes for granted that there is
        # one.
        return function(itertools.chain([next(iterator)], iterator))

    return function_of_batches


def are_on_several_machines(strategy):
    """Whether a strategy, or `None`, has replicas on several machines."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    # What Keras asks, too.
    return several and strategy.extended._in_multi_worker_mode()
