"""
Title: Starting from the most similar task
Description: A few random steps tell which known goal is nearest to a new one,
    and training starts from the policy for that.
Accelerator: None
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_meta
import keras_meta.rl
from keras_meta import figures

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--output", default="similar_tasks_output", type=pathlib.Path
)
parser.add_argument("--steps", default=20, type=int)
parser.add_argument("--known-tasks", default=16, type=int)
parser.add_argument("--known-iterations", default=100, type=int)
parser.add_argument("--siamese-steps", default=900, type=int)
parser.add_argument("--batch-size", default=512, type=int)
parser.add_argument("--horizon", default=50, type=int)
parser.add_argument("--rollouts", default=5, type=int)
parser.add_argument("--epochs", default=5, type=int)
parser.add_argument("--iterations", default=20, type=int)
parser.add_argument("--maml-steps", default=100, type=int)
parser.add_argument("--unseen-tasks", default=1000, type=int)
parser.add_argument("--test-tasks", default=20, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

output = arguments.output
output.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(arguments.seed)

"""
## Telling tasks apart

A Siamese network compares what random steps led to. It is trained on pairs of
short rollouts, so that their embeddings are as far apart as their goals.
"""

environment = keras_meta.rl.environments.PointNavigation(
    horizon=arguments.horizon
)
siamese = keras_meta.SiameseNetwork(
    keras_meta.rl.rollout_encoder(environment, arguments.steps)
)
rate = keras.optimizers.schedules.CosineDecay(
    3e-3, arguments.siamese_steps, alpha=0.01
)
siamese.compile(
    keras.optimizers.Adam(rate, global_clipnorm=1.0),
    loss=keras_meta.losses.ContrastiveLoss(),
)
siamese.fit(
    keras_meta.rl.rollout_pairs(
        environment, arguments.steps, arguments.batch_size
    ),
    steps_per_epoch=arguments.siamese_steps,
    verbose=2,
)

"""
## Tasks to know

In each of some training goals, PPO learns from scratch, and is kept.
"""


def make_ppo():
    return keras_meta.rl.agents.ppo(
        environment,
        learning_rate=3e-3,
        epochs=arguments.epochs,
        discount=0.95,
        deviation=0.5,
    )


settings = dict(
    rollouts=arguments.rollouts,
    inner_iterations=arguments.iterations,
)
known = environment.sample_tasks(arguments.known_tasks, seed=arguments.seed)
agent = keras_meta.rl.SimilarTaskAgent(
    make_ppo,
    siamese,
    known_tasks=arguments.known_tasks,
    known_iterations=arguments.known_iterations,
    **settings,
)
info = tf.function(
    lambda tasks: agent.learn(environment, tasks), autograph=False
)(known)
print(
    f"known tasks: return {float(info.extra['return_before']):.2f} before and "
    f"{float(info.extra['return_after']):.2f} after training"
)

"""
## Is the nearest goal found?

On unseen goals, each told by one rollout of random steps.
"""

new = environment.sample_tasks(arguments.unseen_tasks, "test")
seen = keras_meta.rl.random_rollouts(environment, new, arguments.steps)
found = agent.most_similar(seen).numpy()
nearest = np.linalg.norm(new[:, None] - known[None], axis=-1).argmin(axis=1)
share = np.mean(found == nearest)
error = 1.96 * np.sqrt(share * (1 - share) / len(new))
print(
    f"the nearest of {len(known)} goals is found from {arguments.steps} random "
    f"steps for {100 * share:.1f} ± {100 * error:.1f} % of {len(new)} goals"
)

"""
## Is it a better start?

Beside it: an agent trained on all goals together, with as many environment
steps as the known tasks took, training from scratch, and MAML. The random
steps that find the task count as a rollout.
"""

pooled = keras_meta.rl.FineTuningAgent(make_ppo, **settings)
model = keras_meta.rl.AgentModel(pooled, environment)
model.compile()
model.fit(
    tf.data.Dataset.from_tensors(known).repeat(),
    steps_per_epoch=arguments.known_iterations,
    verbose=2,
)
maml = keras_meta.rl.MAMLAgent(
    environment.time_step_spec(),
    environment.action_spec(),
    keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((2,), (64, 64), None, activation="tanh"),
    ),
    inner_steps=2,
    rollouts=20,
    update_rule=keras_meta.update_rules.LearnedStepSizes(0.5, 2),
    every_step=True,
)
model = keras_meta.rl.AgentModel(maml, environment)
model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=1.0))
model.fit(
    environment.tasks(20),
    steps_per_epoch=arguments.maml_steps,
    verbose=2,
)

AGENTS = {
    "most similar task": agent,
    "pooled": pooled,
    "from scratch": keras_meta.rl.FineTuningAgent(make_ppo, **settings),
    "MAML": maml,
}
figure = figures.figure_for(None, 6, 4)
axes = figure.subplots()
curves = {}
for name, start in AGENTS.items():
    curve = start.evaluate(environment, tasks=arguments.test_tasks)
    rollouts = np.array(curve.rollouts)
    if start is agent:
        # No rollout is longer than the horizon.
        rollouts = rollouts + arguments.steps / arguments.horizon
    curves[name] = rollouts, curve.means
    steps = rollouts * arguments.horizon
    axes.plot(steps, curve.means, label=name)
    axes.fill_between(
        steps,
        curve.means - curve.intervals,
        curve.means + curve.intervals,
        alpha=0.15,
    )
    print(
        f"{name}: {curve.means[0]:.2f} ± {curve.intervals[0]:.2f} at first, "
        f"{curve.means[-1]:.2f} ± {curve.intervals[-1]:.2f} after "
        f"{int(steps[-1])} environment steps"
    )
axes.set(xlabel="environment steps in the new task", ylabel="return")
axes.legend()
figure.savefig(output / "similar_tasks.png", dpi=120)

# The best that the pooled start reaches, and when either does.
target = curves["pooled"][1].max()
for name in ("pooled", "most similar task"):
    rollouts, means = curves[name]
    reached = np.flatnonzero(means >= target)
    told = "never"
    if len(reached):
        told = f"after {rollouts[reached[0]] * arguments.horizon:.0f} steps"
    print(f"{name} reaches {target:.2f} {told}")
print(f"picture: {output / 'similar_tasks.png'}")
