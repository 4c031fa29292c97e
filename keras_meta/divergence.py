import keras
import tensorflow as tf

from keras_meta import replicas


class DivergenceError(ValueError):
    """The inner loop has left the finite numbers (NaN or Inf)."""


class DivergenceTracker(keras.metrics.Metric):
    """Counts the tasks whose adapted weights are not finite, by weight.

    It is a metric so that Keras resets it every epoch and sums it over the
    replicas of a `tf.distribute` strategy; it adds nothing to the logs.

    Args:
        weight_names: List of strings, the paths of the adapted weights.
    """

    def __init__(self, weight_names, name="divergence", **kwargs):
        super().__init__(name=name, **kwargs)
        self.names = [*weight_names, "the query loss or its gradient"]
        self.counts = self.add_variable(
            shape=(len(self.names),), initializer="zeros", name="counts"
        )

    def update_state(self, finite):
        """Adds a batch of tasks.

        Args:
            finite: Bool tensor `[tasks, weights + 1]`, whether each adapted
                weight of each task is finite, and its query loss.
        """
        diverged = tf.reduce_sum(tf.cast(~finite, self.dtype), axis=0)
        self.counts.assign_add(diverged)

    def result(self):
        return {}

    def raise_if_diverged(self, inner_loop_settings):
        """Raises a `DivergenceError` that names the weights.

        Args:
            inner_loop_settings: String, the settings to report.
        """
        counts = self.counts.numpy()
        names = [
            f"{name} (in {int(count)} tasks)"
            for name, count in zip(self.names, counts)
            if count
        ]
        if names:
            raise DivergenceError(
                "The inner loop must stay finite, but after adaptation these "
                f"hold NaN or Inf: {', '.join(names)}. "
                f"Received: {inner_loop_settings}. Lower the inner learning "
                "rate or the number of inner steps, scale the inputs, or look "
                "for NaN in the data. The gradients of the step were left "
                "out, so that the network is still finite."
            )


def all_finite(weights, others):
    """Tells what of a task is finite, for a `DivergenceTracker`.

    Args:
        weights: List of tensors, the adapted weights.
        others: List of tensors, the query loss and its gradients.

    Returns:
        Bool tensor `[weights + 1]`: each of the weights; all of the others.
    """

    def is_finite(tensor):
        return tf.reduce_all(tf.math.is_finite(tensor))

    rest = tf.reduce_all([is_finite(tensor) for tensor in others] or [True])
    return tf.stack([is_finite(weight) for weight in weights] + [rest])


def on_any_replica(diverged):
    """Returns whether `diverged` on any replica of a `tf.distribute` strategy.

    The gradients of all replicas are added, and one that is left out alone
    would leave half an update.
    """
    if replicas.count() == 1:
        return diverged
    context = tf.distribute.get_replica_context()
    count = tf.cast(diverged, tf.float32)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, count) > 0
