from keras_meta import arguments
from keras_meta.rl.meta_agent import MetaAgent


class IteratedAgent(MetaAgent):
    """An agent that adapts by turns: it collects rollouts, and is trained.

    The base of some agents. A subclass has the attributes `rollouts`, those
    of an inner iteration, and `inner_iterations`, how many there are.
    """

    def rollout_counts(self, environment, rollouts=None):
        iterations = self.iterations_for(rollouts)
        return [self.rollouts * number for number in range(iterations + 1)]

    def iterations_for(self, rollouts):
        """Returns how many iterations it takes to collect that many.

        Args:
            rollouts: Integer, or `None` for as many as in training.

        Returns:
            Integer.

        Raises:
            ValueError: Where it would not be a whole number.
        """
        if rollouts is None:
            return self.inner_iterations
        arguments.check_positive_integer("rollouts", rollouts)
        if rollouts % self.rollouts:
            raise ValueError(
                "`rollouts` must be a multiple of those of an inner iteration."
                f" Received: rollouts={rollouts}, where an iteration takes "
                f"{self.rollouts}."
            )
        return rollouts // self.rollouts
