import keras
import tensorflow as tf


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
        self.weight_names = list(weight_names)
        self.counts = self.add_variable(
            shape=(len(self.weight_names),), initializer="zeros", name="counts"
        )

    def update_state(self, finite):
        """Adds a batch of tasks.

        Args:
            finite: Bool tensor `[tasks, weights]`, whether each adapted
                weight of each task is finite.
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
            for name, count in zip(self.weight_names, counts)
            if count
        ]
        if names:
            raise DivergenceError(
                "The inner loop must stay finite, but after adaptation these "
                f"weights hold NaN or Inf: {', '.join(names)}. "
                f"Received: {inner_loop_settings}. Lower the inner learning "
                "rate or the number of inner steps, scale the inputs, or look "
                "for NaN in the data. The update was not applied."
            )


def all_finite(weights):
    """Returns a bool tensor `[weights]`: is each of the tensors finite?"""
    return tf.stack(
        [tf.reduce_all(tf.math.is_finite(weight)) for weight in weights]
    )
