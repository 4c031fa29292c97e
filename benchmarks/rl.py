"""
Title: Speed of meta-RL
Description: Environment steps and outer steps a second, beside the same loops
    written by hand in PyTorch.
Accelerator: None

    python benchmarks/rl.py [--rounds 3] [--seconds 5]
        [--contestants ...] [--peers-python PYTHON] [--output FOLDER]

Each contestant runs in a process of its own, with two threads, and they take
turns, so that what else the machine does falls on all. `--peers-python` is the
interpreter of an environment with PyTorch.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

THREADS = 2
ROWS = 10_000
# The settings of navigation in the literature: tasks, rollouts, steps.
TASKS, ROLLOUTS, HORIZON, EPOCHS, UNITS = 20, 20, 100, 5, 64


def timed(step, seconds):
    """Returns how often `step()` runs in a second, and its first duration."""
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    count, start = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - start < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - start), first


def in_tensorflow(intra_op_threads=THREADS):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    import keras_meta
    import keras_meta.rl

    return tf, keras_meta


def measure_rollouts(family, seconds, rows, network):
    """Rollouts of 100 steps by a policy, all in one call of a graph."""
    tf, keras_meta = in_tensorflow()
    from tf_agents.policies import random_tf_policy

    environment = {
        "bandits": keras_meta.rl.environments.Bandits,
        "navigation": keras_meta.rl.environments.PointNavigation,
    }[family](horizon=HORIZON)
    specs = environment.time_step_spec(), environment.action_spec()
    policy = random_tf_policy.RandomTFPolicy(*specs)
    state = None
    if network:
        agent = make_agent(keras_meta, environment)
        policy = agent.collect_policy
        state = policy.get_initial_state(TASKS)
    tasks = environment.sample_tasks(rows)

    @tf.function(autograph=False)
    def step():
        experience, _ = keras_meta.rl.rollouts.collect(
            environment, policy, tasks, state
        )
        return tf.reduce_mean(experience.reward)

    rate, first = timed(lambda: step().numpy(), seconds)
    return {"steps": rate * rows * HORIZON, "first": first}


def make_agent(keras_meta, environment, outer_update=None, **settings):
    size = environment.observation_spec().shape[0]
    policy = keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((size,), (UNITS, UNITS), None, "tanh"),
    )
    return keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        policy,
        rollouts=ROLLOUTS,
        inner_learning_rate=0.1,
        outer_update=outer_update
        or keras_meta.rl.outer_updates.ClippedSurrogate(epochs=EPOCHS),
        **settings,
    )


def measure_maml(
    seconds, tasks, xla=False, intra_op_threads=THREADS, **settings
):
    """Outer steps of `fit()`, and the same in one loop of the graph."""
    tf, keras_meta = in_tensorflow(intra_op_threads)
    import keras

    environment = keras_meta.rl.environments.PointNavigation(horizon=HORIZON)
    agent = make_agent(keras_meta, environment, **settings)
    model = keras_meta.rl.AgentModel(agent, environment)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=xla)
    batches = environment.tasks(tasks)

    def fit(steps):
        model.fit(batches, steps_per_epoch=steps, verbose=0)

    start = time.perf_counter()
    fit(1)
    first = time.perf_counter() - start
    start = time.perf_counter()
    fit(2)
    count = max(3, int(seconds * 2 / (time.perf_counter() - start)))
    start = time.perf_counter()
    fit(count)
    rate = count / (time.perf_counter() - start)

    inside = environment.sample_tasks(tasks)

    @tf.function(autograph=False, jit_compile=xla)
    def loop():
        def body(number, loss):
            return number + 1, agent.learn(environment, inside).loss

        return tf.while_loop(
            lambda number, loss: number < count,
            body,
            (0, 0.0),
            parallel_iterations=1,
            maximum_iterations=count,
        )

    loop()
    start = time.perf_counter()
    loop()[1].numpy()
    alone = (time.perf_counter() - start) / count
    return {
        "steps": rate * tasks * ROLLOUTS * HORIZON * 2,
        "updates": rate,
        "first": first,
        "outside": max(0.0, 1 - alone * rate),
    }


def measure_torch(seconds, tasks):
    """The same inner and outer loop, all tasks side by side, in PyTorch."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    sizes = [(2, UNITS), (UNITS, UNITS), (UNITS, 2)]
    theta = []
    for inputs, outputs in sizes:
        scale = (6 / (inputs + outputs)) ** 0.5
        theta.append((torch.rand(inputs, outputs) * 2 - 1) * scale)
        theta.append(torch.zeros(1, outputs))
    theta.append(torch.zeros(1, 2))
    theta = [part.requires_grad_() for part in theta]
    optimizer = torch.optim.Adam(theta, 1e-3)

    def tiled():
        return [part[None].expand(tasks, *part.shape) for part in theta]

    def normal(weights, observation):
        hidden = observation
        for layer in range(2):
            hidden = torch.tanh(
                hidden @ weights[2 * layer] + weights[2 * layer + 1]
            )
        mean = 0.1 * (hidden @ weights[4] + weights[5])
        deviation = 0.1 * torch.exp(weights[6])
        return torch.distributions.Normal(mean, deviation.expand_as(mean))

    @torch.no_grad()
    def collect(weights, goals):
        position = torch.zeros(tasks, ROLLOUTS, 2)
        alive = torch.ones(tasks, ROLLOUTS)
        parts = [[], [], [], []]
        for _ in range(HORIZON):
            action = normal(weights, position).sample()
            moved = position + action.clamp(-0.1, 0.1)
            offset = moved - goals[:, None]
            reward = -(offset**2).sum(-1)
            for part, value in zip(parts, (position, action, reward, alive)):
                part.append(value)
            near = (offset.abs() < 0.01).all(-1).float()
            alive = alive * (1 - near)
            position = moved
        return [torch.stack(part, 2) for part in parts]

    def advantages(observation, reward, alive):
        reward = reward * alive
        returns = torch.zeros_like(reward)
        after = torch.zeros(tasks, ROLLOUTS)
        for step in reversed(range(HORIZON)):
            after = reward[:, :, step] + 0.99 * after
            returns[:, :, step] = after
        clock = (torch.arange(HORIZON) / HORIZON)[None, None, :, None]
        clock = clock.expand(tasks, ROLLOUTS, HORIZON, 1)
        features = torch.cat(
            [
                observation,
                observation**2,
                clock,
                clock**2,
                clock**3,
                torch.ones_like(clock),
            ],
            -1,
        )
        x = (features * alive[..., None]).reshape(tasks, -1, 8).double()
        y = (returns * alive).reshape(tasks, -1, 1).double()
        gram = x.transpose(1, 2) @ x + 1e-5 * torch.eye(8).double()
        fitted = x @ torch.linalg.solve(gram, x.transpose(1, 2) @ y)
        found = (y - fitted).float().reshape(tasks, -1)
        count = alive.reshape(tasks, -1).sum(1, keepdim=True)
        found = (found - found.sum(1, keepdim=True) / count) * alive.reshape(
            tasks, -1
        )
        spread = ((found**2).sum(1, keepdim=True) / count).sqrt()
        return found / (spread + 1e-8)

    def flat(part):
        return part.reshape(tasks, ROLLOUTS * HORIZON, -1)

    def batch(weights, goals):
        observation, action, reward, alive = collect(weights, goals)
        return (
            flat(observation),
            flat(action),
            advantages(observation, reward, alive),
            alive.reshape(tasks, -1),
        )

    def likelihood(weights, data):
        return normal(weights, data[0]).log_prob(data[1]).sum(-1)

    def mean(values, data):
        return (values * data[3]).sum(1) / data[3].sum(1)

    def adapt(data, create_graph):
        weights = tiled()
        loss = -mean(likelihood(weights, data) * data[2], data).sum()
        gradients = torch.autograd.grad(
            loss, weights, create_graph=create_graph
        )
        return [
            weight - 0.1 * gradient
            for weight, gradient in zip(weights, gradients)
        ]

    def step():
        goals = torch.rand(tasks, 2) - 0.5
        before = batch([part.detach() for part in tiled()], goals)
        adapted = [part.detach() for part in adapt(before, False)]
        after = batch(adapted, goals)
        with torch.no_grad():
            old = likelihood(adapted, after)
        for _ in range(EPOCHS):
            ratio = torch.exp(likelihood(adapt(before, True), after) - old)
            clipped = ratio.clamp(0.8, 1.2)
            worst = torch.minimum(ratio * after[2], clipped * after[2])
            loss = -mean(worst, after).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert torch.isfinite(loss)

    rate, first = timed(step, seconds)
    return {
        "steps": rate * tasks * ROLLOUTS * HORIZON * 2,
        "updates": rate,
        "first": first,
    }


CONTESTANTS = {
    "bandits, random actions": lambda a: measure_rollouts(
        "bandits", a.seconds, a.rows, False
    ),
    "bandits, a network": lambda a: measure_rollouts(
        "bandits", a.seconds, a.rows, True
    ),
    "navigation, random actions": lambda a: measure_rollouts(
        "navigation", a.seconds, a.rows, False
    ),
    "navigation, a network": lambda a: measure_rollouts(
        "navigation", a.seconds, a.rows, True
    ),
    "MAML, fit()": lambda a: measure_maml(a.seconds, a.tasks),
    "MAML, fit(), intra_op_threads=1": lambda a: measure_maml(
        a.seconds, a.tasks, intra_op_threads=1
    ),
    "MAML, fit(), XLA": lambda a: measure_maml(a.seconds, a.tasks, xla=True),
    "MAML, fit(), first order": lambda a: measure_maml(
        a.seconds, a.tasks, first_order=True
    ),
    "MAML, fit(), first order, intra_op_threads=1": lambda a: measure_maml(
        a.seconds, a.tasks, first_order=True, intra_op_threads=1
    ),
    "MAML, fit(), REINFORCE": lambda a: measure_maml(
        a.seconds, a.tasks, outer_update="reinforce"
    ),
    "MAML, PyTorch": lambda a: measure_torch(a.seconds, a.tasks),
}
PEERS = {"MAML, PyTorch"}


def versions():
    found = {"python": sys.version.split()[0]}
    for name in ("tensorflow", "keras", "tf-agents", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def run(name, arguments):
    """Measures a contestant in a process of its own."""
    python = arguments.peers_python if name in PEERS else sys.executable
    root = pathlib.Path(__file__).resolve().parents[1]
    process = subprocess.run(
        [
            python,
            __file__,
            *("--contestant", name, "--seconds", str(arguments.seconds)),
            *("--rows", str(arguments.rows), "--tasks", str(arguments.tasks)),
        ],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(THREADS),
            "PYTHONPATH": str(root),
        },
    )
    if process.returncode:
        if "No module named 'torch'" in process.stderr:
            return None
        raise RuntimeError(f"{name}:\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def spread(values, form):
    middle = form.format(statistics.median(values))
    if len(values) == 1:
        return middle
    return (
        f"{middle} ({form.format(min(values))} to {form.format(max(values))})"
    )


def table(results):
    lines = [
        "| | environment steps a second | outer steps a second | first step, s "
        "| outside the graph |",
        "|---|---|---|---|---|",
    ]
    for name, measured in results.items():
        cells = [name]
        for key, form in (
            ("steps", "{:,.0f}"),
            ("updates", "{:.2f}"),
            ("first", "{:.1f}"),
            ("outside", "{:.0%}"),
        ):
            values = [one[key] for one in measured if key in one]
            cells.append(spread(values, form) if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=5.0, type=float)
    parser.add_argument(
        "--contestants", nargs="+", default=CONTESTANTS, choices=CONTESTANTS
    )
    parser.add_argument("--rows", default=ROWS, type=int)
    parser.add_argument("--tasks", default=TASKS, type=int)
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument(
        "--output", default="benchmarks/results", type=pathlib.Path
    )
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        result = CONTESTANTS[arguments.contestant](arguments)
        print(json.dumps({**result, "versions": versions()}))
        return

    results = {}
    for number in range(arguments.rounds):
        for name in arguments.contestants:
            result = run(name, arguments)
            if result is None:
                print(f"{name}: left out, PyTorch is not installed")
                continue
            results.setdefault(name, []).append(result)
            print(
                f"round {number + 1}: {name}: {result['steps']:,.0f} steps/s",
                flush=True,
            )
    text = table(results)
    ours, theirs = (results.get(f"MAML, {one}") for one in ("fit()", "PyTorch"))
    if ours and theirs:
        ratios = [
            one["updates"] / other["updates"]
            for one, other in zip(ours, theirs)
        ]
        text += f"\nfit() / PyTorch, by round: {spread(ratios, '{:.2f}')}\n"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "rl.md").write_text(text)
    (arguments.output / "rl.json").write_text(
        json.dumps({"cores": os.cpu_count(), "results": results}, indent=2)
        + "\n"
    )
    print(f"\n{text}")


if __name__ == "__main__":
    main()
