"""
Title: Plain agents: DQN, DDPG and PPO with networks of Keras
Description: One task at a time, as TF-Agents trains; what meta-learning beats.
Accelerator: None
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

import keras_meta.rl
from keras_meta import figures

# isort: split
# After `keras_meta.rl`, which sees to it that it works beside Keras 3.
from tf_agents.drivers import dynamic_episode_driver
from tf_agents.metrics import tf_metrics
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.utils import common

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--output", default="plain_agents_output", type=pathlib.Path
)
parser.add_argument("--agents", default=["dqn", "ddpg", "ppo"], nargs="+")
parser.add_argument("--iterations", default=30, type=int)
parser.add_argument("--rollouts", default=10, type=int, help="an iteration")
parser.add_argument("--gradient-steps", default=50, type=int)
parser.add_argument("--horizon", default=30, type=int)
parser.add_argument("--tasks", default=10, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)

"""
## The tasks

A maze with a goal that shows only when it is reached, for DQN; and a goal in
the plane, where the reward tells how far it is, for DDPG and PPO. Here each
task is learned by itself, from nothing. An environment has as many rows as an
iteration has rollouts.
"""

rows = {"horizon": arguments.horizon, "batch_size": arguments.rollouts}
maze = keras_meta.rl.environments.Mazes(size=3, **rows)
plane = keras_meta.rl.environments.PointNavigation(reward="distance", **rows)

"""
## The agents

They are those of TF-Agents; the networks are any models of Keras 3, from
observations to features. `keras_meta.rl.agents` puts the last layers on a copy
of the model, and all together. By hand it is `keras_meta.rl.KerasQNetwork` and
its kin, in any agent of TF-Agents.
"""


def model_for(environment):
    observation = environment.observation_spec()
    return keras.Sequential(
        [
            keras.Input(observation.shape),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(64, "relu"),
        ]
    )


def dqn():
    return keras_meta.rl.agents.dqn(
        maze, model_for(maze), learning_rate=3e-3, exploration=0.2
    )


def ddpg():
    return keras_meta.rl.agents.ddpg(
        plane, model_for(plane), learning_rate=3e-3, noise=0.3, discount=0.9
    )


def ppo():
    return keras_meta.rl.agents.ppo(
        plane, model_for(plane), learning_rate=3e-3, epochs=5, deviation=0.5
    )


KINDS = {"dqn": (dqn, maze), "ddpg": (ddpg, plane), "ppo": (ppo, plane)}

"""
## One task, by the loop of TF-Agents

A driver plays rollouts by the agent's `collect_policy` into a replay buffer.
On policy, the agent is trained on all that is in there, once; off policy, on
minibatches of two steps that follow each other, from all rollouts so far. The
step from the end of one rollout to the beginning of the next is none to learn
from: DDPG would not know.
"""


def train_by_hand(agent, environment, task):
    """Trains in one task; returns the steps taken and the returns, by turns."""
    environment.set_tasks(task)
    agent.initialize()
    on_policy = agent.train_sequence_length is None
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
        agent.collect_data_spec,
        batch_size=environment.batch_size,
        max_length=2 * arguments.iterations * arguments.horizon,
    )
    taken = tf_metrics.EnvironmentSteps()
    driver = dynamic_episode_driver.DynamicEpisodeDriver(
        environment,
        agent.collect_policy,
        observers=[buffer.add_batch, taken],
        num_episodes=arguments.rollouts,
    )
    train = common.function(agent.train, autograph=False)
    play = keras_meta.rl.rollouts.collector(
        environment, agent.policy, arguments.rollouts
    )

    def measured():
        experience, _ = play()
        returns = keras_meta.rl.rollouts.first_returns(experience)
        return int(taken.result()), float(tf.reduce_mean(returns))

    if not on_policy:
        minibatches = iter(
            buffer.as_dataset(num_steps=agent.train_sequence_length)
            .filter(lambda pair, info: ~pair.is_boundary()[0])
            .batch(64)
            .prefetch(2)
        )
    points = [measured()]
    for _ in range(arguments.iterations):
        driver.run()
        if on_policy:
            train(buffer.gather_all())
            buffer.clear()
        else:
            for _ in range(arguments.gradient_steps):
                train(next(minibatches)[0])
        points.append(measured())
    return points


"""
## Many tasks

A `FineTuningAgent` that was never trained does the same in one graph, with an
agent that begins anew in each task: the mean over tasks has an interval. This
is "from scratch", which every meta-learner has to beat at equal steps.
"""


def curve_over_tasks(make_agent, environment):
    """Returns a `ReturnCurve`, of training from scratch in each task."""
    agent = keras_meta.rl.FineTuningAgent(
        make_agent,
        rollouts=arguments.rollouts,
        inner_iterations=arguments.iterations,
        gradient_steps=arguments.gradient_steps,
    )
    return agent.evaluate(environment, arguments.tasks)


figure = figures.figure_for(None, 5 * len(arguments.agents), 4)
axes = figure.subplots(1, len(arguments.agents), squeeze=False)[0]
for axis, name in zip(axes, arguments.agents):
    make_agent, environment = KINDS[name]
    task = tf.nest.map_structure(
        lambda leaf: leaf[0], environment.sample_tasks(1, "test")
    )
    points = train_by_hand(make_agent(), environment, task)
    every = max(1, arguments.iterations // 5)
    for steps, gained in points[::every]:
        print(f"{name}, one task: {steps:6,} steps: return {gained:.2f}")
    curve = curve_over_tasks(make_agent, environment)
    steps = [rollouts * environment.horizon for rollouts in curve.rollouts]
    for number in range(0, len(steps), every):
        print(
            f"{name}, {arguments.tasks} tasks: {steps[number]:6,} steps: "
            f"return {curve.means[number]:.2f} ± {curve.intervals[number]:.2f}",
            flush=True,
        )
    axis.plot(steps, curve.means, label=f"{arguments.tasks} tasks")
    axis.fill_between(
        steps,
        curve.means - curve.intervals,
        curve.means + curve.intervals,
        alpha=0.2,
    )
    axis.plot(*zip(*points), "--", label="one task, by hand", linewidth=1)
    axis.set_title(f"{name.upper()}, {type(environment).__name__}")
    axis.set_xlabel("environment steps in the task")
    axis.set_ylabel("return of the policy")
    axis.legend()
path = output / "plain_agents.png"
figure.savefig(path, dpi=110)
print(f"picture: {path}")
