import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import random_tf_policy

from keras_meta import arguments
from keras_meta import task_library
from keras_meta.algorithms.siamese_network import SiameseNetwork
from keras_meta.rl import rollout_encoding
from keras_meta.rl import rollouts as rollouts_module
from keras_meta.rl.held_state import HeldState
from keras_meta.rl.inner_training_agent import InnerTrainingAgent
from keras_meta.rl.inner_training_agent import refuse_optimizer
from keras_meta.rl.meta_agent import MetaAgent
from keras_meta.rl.network_set import NetworkSet


class SimilarTaskAgent(InnerTrainingAgent):
    """Starts from the policy of the most similar task that it knows.

    It knows some tasks: for each it has what an agent of TF-Agents has
    learned there, and a few random rollouts. In a new task it takes a few
    random steps, finds the known task whose rollouts are most like them, by a
    Siamese network, and trains on from the weights of that task.

    A step of training is a batch of tasks to know: in each of them an agent
    is trained from scratch.

    Args:
        make_agent: A function without arguments that returns an agent of
            TF-Agents, each time one with networks and optimizers of its own:
            see `keras_meta.rl.agents`.
        siamese: A `keras_meta.SiameseNetwork` that compares rollouts: see
            `keras_meta.rl.rollout_encoder()` and `rollout_pairs()`. It is
            trained before, by its own `fit()`.
        known_tasks: Integer of 1 or more, how many tasks are known at most;
            the newest ones. Defaults to `16`.
        known_rollouts: Integer of 1 or more, the random rollouts of each of
            them. Defaults to `20`.
        known_iterations: Integer of 1 or more, the iterations of training in
            a task to know. Defaults to `20`.
        rollouts: Integer of 1 or more, the rollouts of an inner iteration.
            Defaults to `10`.
        inner_iterations: Integer of 1 or more, how often rollouts are
            collected in a new task, and trained on. Defaults to `5`.
        gradient_steps: Integer of 1 or more, for agents off policy: the
            minibatches of an inner iteration. Defaults to `50`.
        minibatch_size: Integer of 1 or more, the size of these. Defaults to
            `64`.
        name: String.

    Raises:
        ValueError: Where an argument is not as described.
        TypeError: Where `make_agent` makes something else, or `siamese` is
            something else.

    Example:

    ```python
    environment = keras_meta.rl.environments.PointNavigation(horizon=20)
    siamese = keras_meta.SiameseNetwork(
        keras_meta.rl.rollout_encoder(environment, steps=10)
    )
    siamese.compile("adam", loss=keras_meta.losses.ContrastiveLoss())
    siamese.fit(
        keras_meta.rl.rollout_pairs(environment, steps=10), steps_per_epoch=2
    )
    agent = keras_meta.rl.SimilarTaskAgent(
        lambda: keras_meta.rl.agents.ppo(environment, epochs=2),
        siamese,
        known_tasks=2,
        known_iterations=1,
        rollouts=2,
        inner_iterations=1,
    )
    model = keras_meta.rl.AgentModel(agent, environment)
    model.compile()
    model.fit(environment.tasks(2, batches=1))
    print(agent.evaluate(environment, tasks=2))
    ```
    """

    def __init__(
        self,
        make_agent,
        siamese,
        known_tasks=16,
        known_rollouts=20,
        known_iterations=20,
        rollouts=10,
        inner_iterations=5,
        gradient_steps=50,
        minibatch_size=64,
        name=None,
    ):
        arguments.check_positive_integer("known_tasks", known_tasks)
        arguments.check_positive_integer("known_rollouts", known_rollouts)
        arguments.check_positive_integer("known_iterations", known_iterations)
        if not isinstance(siamese, SiameseNetwork):
            raise TypeError(
                "`siamese` must be a `keras_meta.SiameseNetwork`. Received: "
                f"siamese={siamese!r}."
            )
        shape = siamese.network.input_shape
        if len(shape) != 3 or shape[1] is None:
            raise ValueError(
                "The network of `siamese` must take rollouts of a number of "
                f"steps. Received: a network for inputs of shape {shape}. "
                "Make it with `keras_meta.rl.rollout_encoder()`."
            )
        self.steps = shape[1]
        self.known_tasks = int(known_tasks)
        self.known_iterations = int(known_iterations)
        # In functions, where Keras 2 does not look into Keras 3.
        self._siamese = lambda: siamese
        super().__init__(
            make_agent,
            None,
            rollouts,
            inner_iterations,
            gradient_steps,
            minibatch_size,
            name,
        )
        tasks = self.known_tasks
        known = HeldState(
            {
                "count": tf.constant(0),
                "rollouts": tf.zeros([tasks, known_rollouts, *shape[1:]]),
                "values": [
                    tf.repeat(value[None], tasks, axis=0)
                    for value in self._shared().values()
                ],
            }
        )
        self._known = lambda: known
        self._known_variables = [v.value for v in known.variables]

    @MetaAgent.optimizer.setter
    def optimizer(self, optimizer):
        refuse_optimizer(self, optimizer)

    @property
    def siamese(self):
        """The `keras_meta.SiameseNetwork` that compares rollouts."""
        return self._siamese()

    @property
    def models(self):
        """The Keras models that hold what is learned, and what is known."""
        return [*super().models, self.siamese, self._known()]

    def collect(self, environment, tasks):
        """Trains from scratch in each task, and takes random steps there.

        Args:
            environment: A `keras_meta.rl.environments.TaskFamily`.
            tasks: Nested structure of tensors `[tasks, ...]`.

        Returns:
            What `train()` takes: a tuple of the `TaskTrainings`, and the
            random rollouts `[tasks, rollouts, steps, numbers]`.
        """
        count = tf.nest.flatten(tasks)[0].shape[0]
        if count > self.known_tasks:
            raise ValueError(
                "A batch must not have more tasks than can be known. "
                f"Received: {count} tasks and known_tasks={self.known_tasks}."
            )
        trainings = self.train_in_tasks(
            environment, tasks, self.known_iterations, every=False
        )
        rollouts = self._known().read()["rollouts"].shape[1]
        rows = tf.nest.map_structure(
            lambda leaf: tf.repeat(leaf, rollouts, axis=0), tasks
        )
        seen = rollout_encoding.random_rollouts(environment, rows, self.steps)
        return trainings, tf.reshape(seen, [count, rollouts, *seen.shape[1:]])

    def _train(self, experience, weights=None):
        del weights
        trainings, seen = experience
        known = self._known().read()
        count = seen.shape[0]
        slots = (known["count"] + tf.range(count)) % self.known_tasks

        def put(kept, new):
            return tf.tensor_scatter_nd_update(kept, slots[:, None], new)

        self._known().write(
            count=known["count"] + count,
            rollouts=put(known["rollouts"], seen),
            values=[
                put(kept, new)
                for kept, new in zip(known["values"], trainings.values)
            ],
        )
        self.train_step_counter.assign_add(1)
        returns = tf.reduce_mean(trainings.returns, axis=0)
        logs = {"return_before": returns[0], "return_after": returns[-1]}
        return tf_agent.LossInfo(trainings.loss, logs)

    def most_similar(self, seen):
        """Returns which known tasks are most similar to new ones.

        Args:
            seen: Tensor `[tasks, steps, numbers]`, a random rollout of each;
                see `keras_meta.rl.random_rollouts()`.

        Returns:
            Integer tensor `[tasks]`, numbers of known tasks.
        """
        known = self._known().read()
        tasks, rollouts = known["rollouts"].shape[:2]
        network = self.siamese.network
        embeddings = network(
            tf.reshape(known["rollouts"], [-1, *known["rollouts"].shape[2:]]),
            training=False,
        )
        embeddings = tf.reshape(embeddings, [tasks, rollouts, -1])
        new = network(seen, training=False)
        distances = tf.norm(
            new[:, None] - tf.reduce_mean(embeddings, axis=1), axis=-1
        )
        empty = tf.range(tasks) >= known["count"]
        return tf.argmin(tf.where(empty, np.inf, distances), axis=1)

    def returns(self, environment, tasks, rollouts=None):
        iterations = self.iterations_for(rollouts)
        seen = rollout_encoding.random_rollouts(environment, tasks, self.steps)
        return self.train_in_tasks(
            environment, tasks, iterations, starts=self._starts(seen)
        ).returns

    def _starts(self, seen):
        nearest = self.most_similar(seen)
        values = self._known().read()["values"]
        return [tf.gather(value, nearest) for value in values]

    def _start_in(self, environment):
        policy = random_tf_policy.RandomTFPolicy(
            self.time_step_spec, self.action_spec
        )
        collect = rollouts_module.collector(
            environment, policy, 1, steps=self.steps + 1
        )
        experience, _ = collect()
        seen = rollout_encoding.described(experience, self.action_spec)
        return [value[0] for value in self._starts(seen)]

    def library(self):
        """Returns what is known, as a library that can be saved alone.

        Returns:
            A `keras_meta.TaskLibrary` of the tasks `"task 0"` and so on, with
            all networks of their agents.
        """
        known = self._known().read()
        library = task_library.TaskLibrary(self.siamese)
        training = self._make_training()
        for number in range(min(int(known["count"]), self.known_tasks)):
            training.begin([value[number] for value in known["values"]])
            library.add(
                f"task {number}",
                known["rollouts"][number].numpy(),
                NetworkSet(training.models),
            )
        return library

    def know(self, library):
        """Takes over what a library knows.

        Args:
            library: A `keras_meta.TaskLibrary` that `library()` returned, or
                one like it that was loaded.

        Raises:
            ValueError: Where there are too many tasks, or the models or the
                rollouts of one do not fit.
        """
        names = library.names
        if len(names) > self.known_tasks:
            raise ValueError(
                "A library must not have more tasks than can be known. "
                f"Received: {len(names)} tasks and known_tasks="
                f"{self.known_tasks}."
            )
        training = self._make_training()
        own = NetworkSet(training.models)
        known = self._known().read()
        seen = known["rollouts"].numpy()
        values = [value.numpy() for value in known["values"]]
        for number, name in enumerate(names):
            weights = library.model_of(name).get_weights()
            examples = library.examples_of(name)
            _check_fit(name, "rollouts", [examples], [seen[number]])
            _check_fit(name, "policy", weights, own.get_weights())
            own.set_weights(weights)
            seen[number] = examples
            for kept, value in zip(values, training.values()):
                kept[number] = value
        self._known().write(count=len(names), rollouts=seen, values=values)


def _check_fit(name, part, found, wanted):
    """Raises where something of a library does not fit the agent."""
    found, wanted = [
        [np.shape(array) for array in arrays] for arrays in (found, wanted)
    ]
    if found != wanted:
        raise ValueError(
            f"The {part} of the known task {name!r} must fit the agent and "
            f"its environment. Received: shapes {found}, where they must be "
            f"{wanted}."
        )
