"""
Title: Every method of meta-RL on the same tasks, with the same steps to train
Description: Navigation, bandits and half cheetahs; learners and baselines.
Accelerator: None

Each method is trained for the same number of environment steps, all that it
takes counted, and then adapts to the same test tasks, on the same number of
rollouts in each. What is reported, with the 95 % interval over the test tasks
of all seeds:

- the return before and after the adaptation;
- the seconds of training, its compilation by TensorFlow included.

A step is counted for each row of each rollout, up to the horizon. Not counted
are rollouts that only measure, from which nothing is learned.
"""

import argparse
import collections
import contextlib
import functools
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_meta
import keras_meta.rl
from keras_meta import backbones
from keras_meta import figures
from keras_meta.evaluation import mean_and_interval
from keras_meta.rl import environments

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
)
parser.add_argument(
    "--output", default="compare_meta_rl_output", type=pathlib.Path
)
parser.add_argument(
    "--families",
    default=["navigation", "bandits", "half_cheetah"],
    choices=["navigation", "bandits", "half_cheetah"],
    nargs="+",
)
parser.add_argument("--methods", default=None, nargs="+", help="by name")
parser.add_argument("--seeds", default=[0], type=int, nargs="+")
parser.add_argument(
    "--budget", default=200_000, type=int, help="environment steps of training"
)
parser.add_argument("--test-tasks", default=100, type=int)
parser.add_argument(
    "--rollouts", default=12, type=int, help="to adapt on, in each task"
)
parser.add_argument("--meta-batch-size", default=10, type=int)
parser.add_argument("--gradient-steps", default=10, type=int, help="off policy")
arguments = parser.parse_args()

ROLLOUTS, TASKS = arguments.rollouts, arguments.meta_batch_size

"""
## The families

A goal in the plane that is not seen, while the reward tells how far it is; arms
that pay with chances of their own; and a half cheetah of MuJoCo that shall run
with a velocity that it has to find out.
"""

FAMILIES = {
    "navigation": lambda: environments.PointNavigation("distance", horizon=20),
    "bandits": lambda: environments.Bandits(arms=5, horizon=10),
    "half_cheetah": lambda: environments.HalfCheetahVelocities(horizon=40),
}

"""
## The methods

Each is a function of an environment that returns a `Learner`: the agent; the
optimizer of its outer steps; the environment that it is trained in; the tasks
of an outer step, and the environment steps that it takes in each of them; and
the steps that were taken before. The budget and these say how many outer steps
there are.

All networks have two layers of 64 units. Of the rollouts in a task, those that
learn by policy gradients take two inner steps, agents of TF-Agents are trained
up to four times, and those of MetaGenRL up to ten times. Nothing was tuned.
"""

Learner = collections.namedtuple(
    "Learner",
    ["agent", "optimizer", "environment", "tasks", "steps", "before"],
    defaults=[0],
)


def parts(wanted):
    """Returns in how many equal parts to adapt, and the rollouts of each."""
    count = max(n for n in range(1, wanted + 1) if ROLLOUTS % n == 0)
    return count, ROLLOUTS // count


def clipped_adam(rate):
    return keras.optimizers.Adam(rate, global_clipnorm=1.0)


def width(spec):
    return spec.shape.num_elements()


def specs_of(environment):
    return environment.time_step_spec(), environment.action_spec()


def maml(environment, context_size=0, **settings):
    """MAML; and CAVIA, where there is a context."""
    specs = specs_of(environment)
    inner_steps, rollouts = parts(2)
    observation = environment.observation_spec()
    model = backbones.mlp(
        (width(observation) + context_size,), (64, 64), None, activation="tanh"
    )
    settings = {
        "inner_steps": inner_steps,
        "rollouts": rollouts,
        "every_step": True,
        **settings,
    }
    if context_size:
        agent = keras_meta.rl.CAVIAAgent(
            *specs, model, context_size=context_size, **settings
        )
    else:
        agent = keras_meta.rl.MAMLAgent(
            *specs,
            keras_meta.rl.KerasDistributionNetwork(
                observation, specs[1], model
            ),
            inner_learning_rate=0.5,
            **settings,
        )
    # Rollouts for each inner step, and after the last.
    steps = (inner_steps + 1) * rollouts * environment.horizon
    return Learner(agent, clipped_adam(3e-3), environment, TASKS, steps)


def rl2(environment):
    trials = environments.Trials(environment, ROLLOUTS + 1)
    agent = keras_meta.rl.RL2Agent(
        *specs_of(trials), keras.layers.GRUCell(64), entropy=0.0
    )
    return Learner(agent, clipped_adam(5e-3), trials, TASKS, trials.horizon)


def pearl(environment):
    agent = keras_meta.rl.PEARLAgent(
        *specs_of(environment),
        environment.horizon,
        rollouts=3,
        prior_rollouts=3,
        gradient_steps=2 * arguments.gradient_steps,
        discount=0.9,
    )
    steps = (agent.rollouts + 1) * environment.horizon
    optimizer = keras.optimizers.Adam(3e-3)
    return Learner(agent, optimizer, environment, TASKS, steps)


def metagenrl(environment):
    iterations, rollouts = parts(10)
    agent = keras_meta.rl.MetaGenRLAgent(
        *specs_of(environment),
        population=TASKS,
        inner_iterations=iterations,
        rollouts=rollouts,
        gradient_steps=arguments.gradient_steps,
    )
    steps = rollouts * environment.horizon
    return Learner(agent, clipped_adam(1e-3), environment, TASKS, steps)


# The agents of TF-Agents that others train on in a task.
AGENTS = {
    "PPO": functools.partial(
        keras_meta.rl.agents.ppo,
        learning_rate=3e-3,
        epochs=5,
        entropy=0.03,
        deviation=0.5,
    ),
    "DDPG": functools.partial(
        keras_meta.rl.agents.ddpg, learning_rate=3e-3, noise=0.3, discount=0.9
    ),
    "DQN": functools.partial(
        keras_meta.rl.agents.dqn, learning_rate=3e-3, exploration=0.3
    ),
}


def settings_of_training():
    iterations, rollouts = parts(4)
    return {
        "rollouts": rollouts,
        "inner_iterations": iterations,
        "gradient_steps": arguments.gradient_steps,
    }


def reptile(environment, agent):
    agent = keras_meta.rl.ReptileAgent(
        lambda: AGENTS[agent](environment), **settings_of_training()
    )
    steps = ROLLOUTS * environment.horizon
    optimizer = keras.optimizers.SGD(0.5)
    return Learner(agent, optimizer, environment, min(4, TASKS), steps)


def fine_tuning(environment, agent):
    agent = keras_meta.rl.FineTuningAgent(
        lambda: AGENTS[agent](environment), **settings_of_training()
    )
    steps = agent.rollouts * environment.horizon
    return Learner(agent, None, environment, TASKS, steps)


def from_scratch(environment, agent):
    # It leaves the budget unused.
    return fine_tuning(environment, agent)._replace(tasks=0)


def similar_task(environment, agent):
    """A quarter of the budget is random steps for the Siamese network.

    The rest is training from scratch in the tasks to know, as long as in a new
    task, and random steps there.
    """
    random_steps, pairs, known_rollouts, tasks = 10, 64, 10, min(4, TASKS)
    siamese = keras_meta.SiameseNetwork(
        keras_meta.rl.rollout_encoder(environment, random_steps)
    )
    siamese.compile("adam", loss=keras_meta.losses.ContrastiveLoss())
    # A batch of pairs is as many rollouts: each pair is there twice.
    of_batch = pairs * random_steps
    batches = max(1, arguments.budget // 4 // of_batch)
    siamese.fit(
        keras_meta.rl.rollout_pairs(environment, random_steps, pairs),
        steps_per_epoch=batches,
        verbose=0,
    )
    before = batches * of_batch
    steps = ROLLOUTS * environment.horizon + known_rollouts * random_steps
    training = settings_of_training()
    agent = keras_meta.rl.SimilarTaskAgent(
        lambda: AGENTS[agent](environment),
        siamese,
        known_tasks=max(tasks, (arguments.budget - before) // steps),
        known_rollouts=known_rollouts,
        known_iterations=training["inner_iterations"],
        **training,
    )
    return Learner(agent, None, environment, tasks, steps, before)


def with_agent(make, agent):
    return functools.partial(make, agent=agent)


E_MAML = keras_meta.rl.sampling_gradients.EMAML(weight=0.01)
ANY, REAL, INTEGER = (True, False), (False,), (True,)

# How each is made, and whether it takes integer actions.
METHODS = {
    "MAML": (maml, ANY),
    "MAML, first order": (functools.partial(maml, first_order=True), ANY),
    "ANIL": (functools.partial(maml, adapts="head"), ANY),
    "CAVIA": (functools.partial(maml, context_size=5), ANY),
    "ProMP": (functools.partial(maml, sampling_gradient="promp"), ANY),
    "E-MAML": (functools.partial(maml, sampling_gradient=E_MAML), ANY),
    "RL^2": (rl2, ANY),
    "PEARL": (pearl, REAL),
    "MetaGenRL": (metagenrl, REAL),
    "Reptile, DDPG": (with_agent(reptile, "DDPG"), REAL),
    "Reptile, DQN": (with_agent(reptile, "DQN"), INTEGER),
    "Reptile, PPO": (with_agent(reptile, "PPO"), ANY),
    "similar task, PPO": (with_agent(similar_task, "PPO"), ANY),
    "fine-tuning, DDPG": (with_agent(fine_tuning, "DDPG"), REAL),
    "fine-tuning, DQN": (with_agent(fine_tuning, "DQN"), INTEGER),
    "fine-tuning, PPO": (with_agent(fine_tuning, "PPO"), ANY),
    "from scratch, DDPG": (with_agent(from_scratch, "DDPG"), REAL),
    "from scratch, DQN": (with_agent(from_scratch, "DQN"), INTEGER),
    "from scratch, PPO": (with_agent(from_scratch, "PPO"), ANY),
}


def is_baseline(name):
    return name.startswith(("fine-tuning", "from scratch"))


"""
## One of them
"""


def measure(make, environment, test_tasks, seed):
    """Trains and tests one method; returns what the table is made of."""
    keras.utils.set_random_seed(seed)
    started = time.perf_counter()
    learner = make(environment)
    of_step = learner.tasks * learner.steps
    outer_steps = 0
    if learner.tasks:
        outer_steps = max(1, (arguments.budget - learner.before) // of_step)
        model = keras_meta.rl.AgentModel(learner.agent, learner.environment)
        model.compile(learner.optimizer)
        model.fit(
            learner.environment.tasks(learner.tasks, seed=seed),
            steps_per_epoch=outer_steps,
            verbose=0,
        )
    seconds = time.perf_counter() - started
    whole_trial = isinstance(learner.environment, environments.Trials)
    curve = learner.agent.evaluate(
        learner.environment,
        test_tasks,
        # RL^2 is measured in each rollout of a trial, also in the last.
        rollouts=ROLLOUTS + whole_trial,
    )
    return {
        "outer_steps": outer_steps,
        "steps": learner.before + outer_steps * of_step,
        "seconds": seconds,
        "rollouts": curve.rollouts,
        "values": curve.values,
    }


def joined(runs):
    """Returns a row of the table, of the runs of all seeds."""
    values = np.concatenate([run["values"] for run in runs])
    columns = [mean_and_interval(column) for column in values.T]
    return {
        **runs[0],
        "seconds": float(np.mean([run["seconds"] for run in runs])),
        "values": np.round(values, 4).tolist(),
        "means": [mean for mean, _ in columns],
        "intervals": [interval for _, interval in columns],
    }


"""
## All of them

A table and a picture of each family, and how the learners compare with the
best baseline on the same test tasks.
"""


def table(rows):
    yield "| method | before | after | outer steps | environment steps | time |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        first, last = [
            f"{row['means'][point]:.2f} ± {row['intervals'][point]:.2f}"
            for point in (0, -1)
        ]
        yield (
            f"| {row['method']} | {first} | {last} | {row['outer_steps']:,} | "
            f"{row['steps']:,} | {row['seconds']:.0f} s |"
        )


def verdict(rows):
    """Says what plain training wins against, task by task."""
    baseline = next((row for row in rows if is_baseline(row["method"])), None)
    if baseline is None:
        return
    found = collections.defaultdict(list)
    for row in rows:
        if is_baseline(row["method"]):
            continue
        mean, interval = mean_and_interval(
            [
                one[-1] - other[-1]
                for one, other in zip(row["values"], baseline["values"])
            ]
        )
        how = "like" if abs(mean) <= interval else "above"
        found["below" if mean < -interval else how].append(row["method"])
    yield f"The best of plain training is {baseline['method']}. After adapting:"
    yield ""
    for how, names in (
        ("above", "clearly better"),
        ("like", "no more than chance apart from it"),
        ("below", "clearly WORSE"),
    ):
        yield f"- {names}: {'; '.join(found[how]) or 'none'}"


def draw(family, rows, path):
    figure = figures.figure_for(None, 9, 5)
    axis = figure.subplots()
    for number, row in enumerate(rows):
        x, mean = row["rollouts"], np.array(row["means"])
        # There are ten colors.
        style = "-" if number < 10 else "--"
        if is_baseline(row["method"]):
            style = ":"
        color = f"C{number % 10}"
        axis.plot(
            x,
            mean,
            style,
            color=color,
            marker="o" if number < 10 else "s",
            markersize=4,
            linewidth=2 if style == ":" else 1.5,
            label=row["method"],
        )
        interval = np.array(row["intervals"])
        axis.fill_between(
            x, mean - interval, mean + interval, color=color, alpha=0.12
        )
    starts = [row["means"][0] for row in rows]
    ends = [row["means"][-1] for row in rows]
    reach = max(ends) - np.median(starts)
    # Agents off policy may fall very far at first.
    axis.set_ylim(bottom=max(axis.get_ylim()[0], np.median(starts) - reach))
    axis.set_title(f"{family}, {arguments.budget:,} environment steps")
    axis.set_xlabel("rollouts in the new task")
    axis.set_ylabel("return")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", title="best first (dotted: plain)")
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def compare(family, environment):
    test_tasks = environment.sample_tasks(arguments.test_tasks, "test")
    integer = environment.action_spec().dtype.is_integer
    path = arguments.output / family
    rows = []
    for name, (make, actions) in METHODS.items():
        if arguments.methods and name not in arguments.methods:
            continue
        if integer not in actions:
            continue
        runs = [
            measure(make, environment, test_tasks, seed)
            for seed in arguments.seeds
        ]
        row = {"method": name, **joined(runs)}
        rows.append(row)
        rows.sort(key=lambda row: -row["means"][-1])
        # After each, so that nothing is lost when time runs out.
        facts = {"budget": arguments.budget, "seeds": arguments.seeds}
        path.with_suffix(".json").write_text(
            json.dumps({**facts, "rows": rows})
        )
        print(
            f"{family}: {name}: return {row['means'][-1]:.2f}, "
            f"{row['seconds']:.0f} s",
            flush=True,
        )
    text = "\n".join([*table(rows), "", *verdict(rows), ""])
    path.with_suffix(".md").write_text(text)
    print(f"\n### {family}\n\n{text}")
    draw(family, rows, path.with_suffix(".png"))


arguments.output.mkdir(parents=True, exist_ok=True)
for family in arguments.families:
    try:
        environment = FAMILIES[family]()
    except ImportError as error:
        print(f"{family} is skipped: {error}")
        continue
    # Environments of gymnasium have processes, which are ended.
    is_context = hasattr(environment, "__exit__")
    with environment if is_context else contextlib.nullcontext():
        compare(family, environment)
