import keras
import tensorflow as tf


class QueryMetrics(keras.metrics.Metric):
    """The query loss and the compiled metrics of other answers to the queries.

    What `compile(metrics=["accuracy"])` logs as `accuracy` is logged by this
    for answers given another way: with the suffix `"before"`, those without
    any adaptation, as `accuracy_before`.

    It is there before `compile()` is, since a model keeps every metric that
    was ever set on it.

    Args:
        suffix: String, what is put behind the names of the metrics.
    """

    def __init__(self, suffix, **kwargs):
        super().__init__(name=f"queries_{suffix}", **kwargs)
        self.suffix = suffix
        self.loss = keras.metrics.Mean(name=f"loss_{suffix}")
        self.copies = None

    def follow(self, compiled_metrics):
        """Copies the metrics of `compile()`.

        Args:
            compiled_metrics: What Keras made of them, or `None` where there
                were none.
        """
        self.loss.reset_state()
        self.copies = None
        if compiled_metrics is not None:
            # Metrics hold state, so that the same objects cannot serve.
            self.copies = type(compiled_metrics)(
                _copy(compiled_metrics._user_metrics),
                _copy(compiled_metrics._user_weighted_metrics),
                output_names=compiled_metrics.output_names,
            )

    def build(self, y, y_pred):
        """Creates the variables, which a traced step is not able to."""
        if self.copies is not None and not self.copies.built:
            self.copies.build(y, y_pred)

    def update_state(self, losses, y, y_pred, sample_weight=None):
        self.loss.update_state(losses)
        if self.copies is not None:
            self.copies.update_state(y, y_pred, sample_weight)

    def result(self):
        results = {self.loss.name: self.loss.result()}
        if self.copies is not None and self.copies.built:
            for name, value in self.copies.result().items():
                results[f"{name}_{self.suffix}"] = value
        return results

    @property
    def variables(self):
        copies = self.copies.variables if self.copies is not None else []
        return self.loss.variables + copies

    def reset_state(self):
        self.loss.reset_state()
        if self.copies is not None:
            self.copies.reset_state()


def _copy(metrics):
    def copy(metric):
        if isinstance(metric, keras.metrics.Metric):
            return type(metric).from_config(metric.get_config())
        return metric

    return tf.nest.map_structure(copy, metrics)
