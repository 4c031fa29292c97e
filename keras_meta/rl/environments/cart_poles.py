import tensorflow as tf

from keras_meta import arguments
from keras_meta.rl.environments.task_family import GraphTaskFamily
from keras_meta.rl.environments.task_family import bounded
from keras_meta.rl.environments.task_family import uniform_numbers

# Seconds a step.
STEP = 0.02
GRAVITY = 9.8
CART_MASS = 1.0
LARGEST_FORCE = 10.0
# A rollout ends where the cart is farther out, or the pole leans more.
FARTHEST = 2.4
LARGEST_ANGLE = 0.20943951


class CartPoles(GraphTaskFamily):
    """Carts that balance poles of different mass and length.

    A task is the mass of the pole and half its length. The agent sees the
    place and the speed of the cart, the angle of the pole from upright and
    its speed, and pushes the cart by a share of the largest force, from -1 to
    1. The reward is 1 for each step, until the pole falls or the cart leaves
    the track. With actions of -1 and 1, a mass of 0.1 and half a length of
    0.5, it moves as gymnasium's `CartPole-v1`.

    Args:
        mass: Tuple of two floats above 0, between which masses are uniform.
            Defaults to `(0.05, 0.5)`.
        half_length: The same, of half the lengths. Defaults to `(0.25, 1.0)`.
        horizon: Integer, the steps of a rollout. Defaults to `200`.
        batch_size: Integer, the rows of `reset()` and `step()`. Defaults to
            `1`.
        seed: Integer from 0, decides which tasks there are.

    Raises:
        ValueError: Where an argument is not as described.

    Example:

    ```python
    environment = keras_meta.rl.environments.CartPoles(horizon=100)
    tasks = environment.sample_tasks(20)
    tasks["half_length"]  # [20]
    ```

    Reference:
        - [Barto et al., 1983](https://doi.org/10.1109/TSMC.1983.6313077)
    """

    def __init__(
        self,
        mass=(0.05, 0.5),
        half_length=(0.25, 1.0),
        horizon=200,
        batch_size=1,
        seed=0,
    ):
        arguments.check_limits("mass", mass)
        arguments.check_limits("half_length", half_length)
        self.mass = tuple(mass)
        self.half_length = tuple(half_length)
        super().__init__(
            tf.TensorSpec([4], tf.float32, "observation"),
            bounded([1], -1.0, 1.0),
            task_spec={
                "mass": tf.TensorSpec([], tf.float32, "mass"),
                "half_length": tf.TensorSpec([], tf.float32, "half_length"),
            },
            horizon=horizon,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_tasks(self, count, seed, split):
        limits = {"mass": self.mass, "half_length": self.half_length}
        return uniform_numbers(count, seed, limits)

    def initial_state(self, tasks, seed):
        count = tf.shape(tasks["mass"])[0]
        return tf.random.stateless_uniform([count, 4], seed, -0.05, 0.05)

    def transition(self, state, actions, tasks, seed):
        force = LARGEST_FORCE * tf.clip_by_value(actions[:, 0], -1.0, 1.0)
        place, speed, angle, turning = tf.unstack(state, axis=1)
        mass, half_length = tasks["mass"], tasks["half_length"]
        whole_mass = CART_MASS + mass
        sine, cosine = tf.sin(angle), tf.cos(angle)
        push = (force + mass * half_length * turning**2 * sine) / whole_mass
        turning_faster = (GRAVITY * sine - cosine * push) / (
            half_length * (4.0 / 3.0 - mass * cosine**2 / whole_mass)
        )
        faster = push - (
            mass * half_length * turning_faster * cosine / whole_mass
        )
        place += STEP * speed
        angle += STEP * turning
        state = tf.stack(
            [
                place,
                speed + STEP * faster,
                angle,
                turning + STEP * turning_faster,
            ],
            axis=1,
        )
        fallen = (tf.abs(place) > FARTHEST) | (tf.abs(angle) > LARGEST_ANGLE)
        return state, tf.ones_like(place), fallen

    def observe(self, state, tasks):
        return state
