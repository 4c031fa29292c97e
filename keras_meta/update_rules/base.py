import keras


class UpdateRule(keras.layers.Layer):
    """How one inner step turns weights and their gradients into new weights.

    A rule is a Keras layer, so that whatever it learns (rates, an LSTM) is
    tracked, trained and saved with the model that uses it. A subclass writes
    `call()`, and `initial_state()` where it remembers something between the
    steps, such as a velocity. Both are pure: the state of a task is handed
    in and handed back, never kept on the layer, so that any number of tasks
    can be adapted side by side.

    Rules are used by `keras_meta.MAML` and the other algorithms that adapt
    by gradient steps, through their argument `update_rule`.

    Example:

    ```python
    @keras.saving.register_keras_serializable(package="my_package")
    class SignDescent(keras_meta.update_rules.UpdateRule):
        def call(self, weights, gradients, state, step):
            new_weights = [
                weight - 0.01 * keras.ops.sign(gradient)
                for weight, gradient in zip(weights, gradients)
            ]
            return new_weights, state

    maml = keras_meta.MAML(network, update_rule=SignDescent())
    ```
    """

    # Whether each number of a weight is treated by itself, by what is learned
    # for all of them. Such a rule serves any network.
    coordinatewise = False

    def build_for(self, variables):
        """Creates what the rule learns, given the variables that adapt.

        Args:
            variables: List of `keras.Variable`, the weights that the inner
                loop updates, in the order in which `call()` gets them.

        Raises:
            ValueError: Where there are none.
        """
        if not variables:
            raise ValueError(
                "An update rule must be built for the weights that adapt, one "
                f"or more. Received: variables={variables!r}. Let a layer "
                "with trainable weights adapt in the inner loop."
            )
        self.built = True

    def initial_state(self, weights):
        """Returns what the rule remembers before a task's first step.

        Args:
            weights: List of tensors, the weights before adaptation.

        Returns:
            A nested structure of tensors; `()` for a rule without memory.
        """
        return ()

    def call(self, weights, gradients, state, step):
        """Takes one inner step.

        Args:
            weights: List of tensors, the weights before the step.
            gradients: List of tensors of the same shapes, the gradients of
                the support loss.
            state: What the last step (or `initial_state()`) returned.
            step: Integer, 0 for the first step; or an integer tensor, where
                an algorithm takes many steps in a loop of the graph.

        Returns:
            A tuple `(weights, state)` after the step.
        """
        raise NotImplementedError(
            f"The update rule {type(self).__name__} must implement "
            "`call(weights, gradients, state, step)`."
        )
