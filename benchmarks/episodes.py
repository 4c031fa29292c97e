"""
Title: Speed of episodes
Description: Episodes a second of this package, of NumPy and of PyTorch side by
    side, and how long a training step waits for its input.
Accelerator: None

    python benchmarks/episodes.py [--rounds 3] [--seconds 3]
        [--parts samplers input] [--peers-python PYTHON] [--output FOLDER]

Each contestant runs in a process of its own, with two threads, and they take
turns, so that what else the machine does falls on all. TensorFlow and PyTorch
need not be in one environment: `--peers-python` is the interpreter of one with
PyTorch, NumPy and, for all contestants, easyfsl.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import threading
import time
import types

# Neither TensorFlow nor PyTorch is imported up here: this file is run with
# both, and the other one may be missing.
import numpy as np

THREADS = 2
CLASSES, EXAMPLES, SIDE = 1200, 20, 28
TASKS = {
    "5-way 1-shot 15-query": (5, 1, 15),
    "20-way 5-shot 15-query": (20, 5, 15),
}
# More than a cache holds.
COPIED_BYTES = 2**28
# Whose episodes are compared with those of the package.
LIBRARY = "easyfsl"
# The larger of the two limits, since all contestants have two threads.
LIMIT = "copy limit, 2 threads"
MODELS = {
    "PrototypicalNetwork, 1 task": ("PrototypicalNetwork", 1),
    "PrototypicalNetwork, 4 tasks": ("PrototypicalNetwork", 4),
    "MAML, 8 tasks": ("MAML", 8),
}
PARTS = ("samplers", "input")


def make_data(classes):
    """Returns noise, which takes as long as glyphs do, and its labels."""
    shape = (classes * EXAMPLES, SIDE, SIDE)
    images = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    return images, np.repeat(np.arange(classes), EXAMPLES)


def float_bytes(task):
    """Returns the bytes of the support and query images of an episode."""
    ways, shots, queries = TASKS[task]
    return ways * (shots + queries) * SIDE * SIDE * 4


def of_keras_meta(images, labels, ways, shots, queries, meta_batch_size):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    import keras_meta

    episodes = keras_meta.episodes.from_arrays(
        images[..., None],
        labels,
        ways=ways,
        shots=shots,
        queries=queries,
        meta_batch_size=meta_batch_size,
    )
    for x, y in episodes:
        yield x["support_x"], x["support_y"], x["query_x"], y


def of_numpy(images, labels, ways, shots, queries, floats):
    # What is drawn is drawn beforehand, and is not timed.
    generator = np.random.default_rng(1)
    per_class = shots + queries
    drawn = []
    for _ in range(500):
        classes = generator.choice(len(images) // EXAMPLES, ways, replace=False)
        order = generator.random((ways, EXAMPLES)).argsort(axis=1)
        index = classes[:, None] * EXAMPLES + order[:, :per_class]
        support, query = index[:, :shots], index[:, shots:]
        drawn.append(np.concatenate([support.ravel(), query.ravel()]))
    support_y = np.repeat(np.arange(ways), shots)
    query_y = np.repeat(np.arange(ways), queries)
    x = images[..., None]
    if floats:
        x = x.astype("float32") / 255
    for index in itertools.cycle(drawn):
        pixels = x[index]
        if not floats:
            pixels = pixels.astype("float32") / 255
        count = ways * shots
        yield pixels[:count], support_y, pixels[count:], query_y


def draws_of_torch(labels, ways, shots, queries):
    """Yields the places of support and query examples, drawn by PyTorch."""
    import torch

    members = torch.from_numpy(
        np.stack([np.flatnonzero(labels == label) for label in set(labels)])
    )
    while True:
        classes = torch.randperm(len(members))[:ways]
        places = torch.stack(
            [
                members[label, torch.randperm(members.shape[1])]
                for label in classes
            ]
        )
        support = places[:, :shots].flatten()
        query = places[:, shots : shots + queries].flatten()
        yield torch.cat([support, query])


def split_of_torch(batches, ways, shots, queries):
    """Yields episodes of batches that hold the support examples first."""
    import torch

    support_y = torch.arange(ways).repeat_interleave(shots)
    query_y = torch.arange(ways).repeat_interleave(queries)
    for images in batches:
        count = ways * shots
        yield images[:count], support_y, images[count:], query_y


def of_torch_loader(images, labels, ways, shots, queries, workers):
    import torch
    from torch.utils import data

    torch.set_num_threads(THREADS)
    pixels = torch.from_numpy(images)[:, None]

    class Images(data.Dataset):
        def __len__(self):
            return len(pixels)

        def __getitem__(self, index):
            return pixels[index].float() / 255

    class Episodes(data.Sampler):
        def __iter__(self):
            for index in draws_of_torch(labels, ways, shots, queries):
                yield index.tolist()

    loader = data.DataLoader(
        Images(), batch_sampler=Episodes(), num_workers=workers
    )
    yield from split_of_torch(loader, ways, shots, queries)


def of_torch_gather(images, labels, ways, shots, queries):
    import torch

    torch.set_num_threads(THREADS)
    pixels = torch.from_numpy(images)[:, None]
    batches = (
        pixels[index].float().div_(255)
        for index in draws_of_torch(labels, ways, shots, queries)
    )
    yield from split_of_torch(batches, ways, shots, queries)


def of_easyfsl(images, labels, ways, shots, queries, workers, floats):
    import torch
    from torch.utils import data

    torch.set_num_threads(THREADS)
    task_sampler, few_shot_dataset = import_easyfsl()
    pixels = torch.from_numpy(images)[:, None]
    if floats:
        pixels = pixels.float() / 255
    classes = labels.tolist()

    class Images(few_shot_dataset):
        def __len__(self):
            return len(pixels)

        def __getitem__(self, index):
            image = pixels[index]
            return image if floats else image.float() / 255, classes[index]

        def get_labels(self):
            return classes

    dataset = Images()
    sampler = task_sampler(
        dataset, n_way=ways, n_shot=shots, n_query=queries, n_tasks=10**9
    )
    loader = data.DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=sampler.episodic_collate_fn,
    )
    for support_x, support_y, query_x, query_y, _ in loader:
        yield support_x, support_y, query_x, query_y


def import_easyfsl():
    """Returns the classes `TaskSampler` and `FewShotDataset` of easyfsl.

    `easyfsl.samplers` imports `easyfsl.datasets`, and that the data sets of
    files, for which it takes torchvision, pandas and Pillow. The sampler needs
    none of them. Where one is missing, the two files that matter are imported
    alone: a package `easyfsl.datasets` with nothing in it but the base class,
    from easyfsl's own file, takes the place of the whole one.

    `TaskSampler` (easyfsl 1.5.0) hands `data_source` to `Sampler` of PyTorch,
    which does not take it any more (2.13). A class between the two takes it.
    The code that is measured is easyfsl's, unchanged, either way.
    """
    from torch.utils import data

    try:
        from easyfsl.datasets import FewShotDataset
        from easyfsl.samplers import TaskSampler
    except ModuleNotFoundError as error:
        if error.name in ("easyfsl", "torch"):
            raise
        for name in [n for n in sys.modules if n.startswith("easyfsl.")]:
            del sys.modules[name]
        import easyfsl

        package = types.ModuleType("easyfsl.datasets")
        package.__path__ = [os.path.join(easyfsl.__path__[0], "datasets")]
        sys.modules[package.__name__] = package
        from easyfsl.datasets.few_shot_dataset import FewShotDataset

        package.FewShotDataset = FewShotDataset
        from easyfsl.samplers.task_sampler import TaskSampler

    class TakesSource(data.Sampler):
        def __init__(self, data_source=None):
            pass

    class Tasks(TaskSampler, TakesSource):
        pass

    return Tasks, FewShotDataset


# Name: what makes episodes, its settings, and whether it needs PyTorch.
SAMPLERS = {
    "keras_meta, meta-batches of 32": (
        of_keras_meta,
        {"meta_batch_size": 32},
        False,
    ),
    "keras_meta, meta-batches of 8": (
        of_keras_meta,
        {"meta_batch_size": 8},
        False,
    ),
    "numpy, uint8": (of_numpy, {"floats": False}, False),
    "numpy, float32 beforehand": (of_numpy, {"floats": True}, False),
    "torch sampler, 0 workers": (of_torch_loader, {"workers": 0}, True),
    "torch sampler, 2 workers": (of_torch_loader, {"workers": 2}, True),
    "torch gather": (of_torch_gather, {}, True),
    "easyfsl, 0 workers": (of_easyfsl, {"workers": 0, "floats": False}, True),
    "easyfsl, 2 workers": (of_easyfsl, {"workers": 2, "floats": False}, True),
    "easyfsl, 0 workers, float32 beforehand": (
        of_easyfsl,
        {"workers": 0, "floats": True},
        True,
    ),
    "easyfsl, 2 workers, float32 beforehand": (
        of_easyfsl,
        {"workers": 2, "floats": True},
        True,
    ),
}
COPIES = {"copy limit, 1 thread": 1, LIMIT: THREADS}


def episodes_of(contestant, task, classes):
    """Returns an iterator over the episodes of a contestant.

    Each item is a tuple of support inputs and labels, query inputs and
    labels; of a meta-batch where the contestant makes such.
    """
    make, options, _ = SAMPLERS[contestant]
    ways, shots, queries = TASKS[task]
    images, labels = make_data(classes)
    return make(images, labels, ways, shots, queries, **options)


def measure_sampler(setting, seconds):
    """Returns the episodes a second of one contestant."""
    contestant = setting["contestant"]
    size = SAMPLERS[contestant][1].get("meta_batch_size", 1)
    iterator = episodes_of(contestant, setting["task"], setting["classes"])

    def count_for(limit):
        count = 0
        started = time.perf_counter()
        # The episode before is there until the next one is, as in a loop.
        for episode in iterator:
            count += size
            elapsed = time.perf_counter() - started
            if elapsed >= limit:
                return count / elapsed

    # Threads, workers and what `tf.data` tunes get under way.
    count_for(max(seconds / 3, 0.05))
    return {"rate": count_for(seconds)}


def measure_copy(setting, seconds):
    """Returns the bytes a second that are copied in memory."""
    threads = COPIES[setting["contestant"]]
    source = np.ones(COPIED_BYTES, "uint8")
    # Written once, so that all its pages are there.
    target = np.zeros_like(source)
    target[:] = 2
    parts = list(zip(np.split(source, threads), np.split(target, threads)))

    def copy():
        others = [
            threading.Thread(target=np.copyto, args=(target, source))
            for source, target in parts[1:]
        ]
        for other in others:
            other.start()
        np.copyto(parts[0][1], parts[0][0])
        for other in others:
            other.join()

    copy()
    count, elapsed = 0, 0.0
    started = time.perf_counter()
    while elapsed < seconds:
        copy()
        count += 1
        elapsed = time.perf_counter() - started
    return {"rate": count * COPIED_BYTES / elapsed}


def make_model(algorithm, tasks, classes, filters=None):
    """Returns a compiled model, and its episodes."""
    import keras

    import keras_meta

    images, labels = make_data(classes)
    settings = {"meta_batch_size": tasks, "classes": range(classes)}
    if algorithm == "MAML":
        # As in benchmarks/maml.py.
        settings.update(ways=5, shots=1, queries=10)
        network = keras_meta.backbones.conv4(
            outputs=5, filters=filters or 32, downsampling="strides"
        )
        model = keras_meta.MAML(network, inner_learning_rate=0.4)
    else:
        settings.update(ways=20, shots=5, queries=15)
        network = keras_meta.backbones.conv4(filters=filters or 64)
        model = keras_meta.PrototypicalNetwork(network)
    model.compile(
        "adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    episodes = keras_meta.episodes.from_arrays(
        images[..., None], labels, **settings
    )
    return model, episodes


def measure_input(setting, seconds, filters=None):
    """Returns how long the steps of a training wait for their input.

    The steps are those of `fit()`, one by one: what it takes to get a
    meta-batch is the waiting, and a step is done once its loss is read. The
    same steps from one meta-batch that stays in memory take turns with them.
    """
    import tensorflow as tf

    algorithm, tasks = MODELS[setting["contestant"]]
    model, episodes = make_model(algorithm, tasks, setting["classes"], filters)
    tf.get_logger().setLevel("ERROR")
    # Builds the model and its graph.
    model.fit(episodes, steps_per_epoch=1, verbose=0)
    kept = episodes.take(1).cache().repeat()
    iterators = {"drawn": iter(episodes), "kept": iter(kept)}

    def train(name, limit):
        waited = elapsed = 0.0
        steps = 0
        while elapsed < limit or steps < 2:
            started = time.perf_counter()
            batch = next(iterators[name])
            got = time.perf_counter()
            logs = model.train_function(iter([batch]))
            float(logs["loss"])
            waited += got - started
            elapsed += time.perf_counter() - started
            steps += 1
        return np.array([steps, waited, elapsed])

    totals = {name: np.zeros(3) for name in iterators}
    for name in iterators:
        train(name, 0)
    turns = 4
    for _ in range(turns):
        for name in iterators:
            totals[name] += train(name, seconds / turns)
    steps, waited, elapsed = totals["drawn"]
    kept_steps, kept_waited, kept_elapsed = totals["kept"]
    return {
        "rate": steps / elapsed,
        "waiting": waited / elapsed,
        "waiting_kept": kept_waited / kept_elapsed,
        "rate_kept": kept_steps / kept_elapsed,
        "ratio": steps / elapsed / (kept_steps / kept_elapsed),
    }


def measure(setting, seconds):
    """Runs one setting in this process and returns what it took."""
    part, contestant = setting["part"], setting["contestant"]
    try:
        if part == "input":
            result = measure_input(setting, seconds)
        elif contestant in COPIES:
            result = measure_copy(setting, seconds)
        else:
            result = measure_sampler(setting, seconds)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "easyfsl"):
            raise
        return {"missing": error.name}
    return {**result, "versions": versions()}


def versions():
    """Returns the versions of what this process has imported."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "tensorflow", "keras", "torch", "easyfsl"):
        if name in sys.modules:
            found[name] = importlib.metadata.version(name)
    if "keras_meta" in sys.modules:
        found["keras_meta"] = sys.modules["keras_meta"].__version__
    return found


def run(setting, seconds, peers_python):
    """Measures one setting in a process of its own."""
    is_peer = SAMPLERS.get(setting["contestant"], (None, None, False))[2]
    command = [
        peers_python if is_peer else sys.executable,
        __file__,
        "--seconds",
        str(seconds),
        "--setting",
        json.dumps(setting),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "OMP_NUM_THREADS": str(THREADS),
        },
    )
    if done.returncode:
        raise SystemExit(f"{setting} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def settings(parts, tasks, contestants, classes):
    """Returns what is to be measured, in the order of the tables."""
    chosen = []
    if "samplers" in parts:
        pairs = [(task, name) for task in tasks for name in SAMPLERS]
        # How fast memory is does not depend on the task.
        pairs += [(None, name) for name in COPIES]
        chosen += [
            {"part": "samplers", "task": task, "contestant": name}
            for task, name in pairs
        ]
    if "input" in parts:
        chosen += [
            {"part": "input", "task": None, "contestant": name}
            for name in MODELS
        ]
    return [
        {**setting, "classes": classes}
        for setting in chosen
        if contestants is None or setting["contestant"] in contestants
    ]


def spread(values, name=""):
    """Returns the median of values, the least and the largest."""
    prefix = f"{name}_" if name else ""
    return {
        f"{prefix}median": statistics.median(values),
        f"{prefix}slowest": min(values),
        f"{prefix}fastest": max(values),
    }


def sampler_rows(results, tasks):
    """Returns the rows of the table of samplers.

    Args:
        results: List of pairs of a setting and its results.
        tasks: Names of tasks.
    """
    rows = []
    for task in tasks:
        size = float_bytes(task)
        rates = {}
        for setting, measured in results:
            if setting["part"] != "samplers" or not measured:
                continue
            name = setting["contestant"]
            if setting["task"] == task:
                rates[name] = [one["rate"] for one in measured]
            elif name in COPIES:
                rates[name] = [one["rate"] / size for one in measured]
        medians = {name: statistics.median(rates[name]) for name in rates}
        library = [medians[n] for n in medians if n.startswith(LIBRARY)]
        for name, values in rates.items():
            row = {"task": task, "contestant": name, **spread(values)}
            row["megabytes"] = row["median"] * size / 1e6
            row["times_library"] = row["share_of_limit"] = None
            if library:
                row["times_library"] = row["median"] / max(library)
            if LIMIT in medians:
                row["share_of_limit"] = row["median"] / medians[LIMIT]
            rows.append(row)
    return rows


def input_rows(results):
    """Returns the rows of the table of waiting."""
    rows = []
    for setting, measured in results:
        if setting["part"] == "input" and measured:
            row = {"model": setting["contestant"]}
            for name in measured[0]:
                if name != "versions":
                    row.update(spread([one[name] for one in measured], name))
            rows.append(row)
    return rows


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sampler_table(rows):
    head = [
        "task",
        "contestant",
        "episodes a second (slowest to fastest)",
        "MB/s",
        f"times {LIBRARY}",
        "of the copy limit",
    ]
    cells = []
    for row in rows:
        times, share = row["times_library"], row["share_of_limit"]
        cells.append(
            [
                row["task"],
                row["contestant"],
                f"{row['median']:,.0f} "
                f"({row['slowest']:,.0f} to {row['fastest']:,.0f})",
                f"{row['megabytes']:,.0f}",
                "" if times is None else f"{times:.1f}",
                "" if share is None else f"{100 * share:.0f} %",
            ]
        )
    return table(head, cells)


def input_table(rows):
    head = [
        "model",
        "steps a second",
        "waiting for input (least to most)",
        "waiting, one meta-batch kept",
        "speed against one meta-batch kept (slowest to fastest)",
    ]
    cells = [
        [
            row["model"],
            f"{row['rate_median']:.2f}",
            f"{100 * row['waiting_median']:.2f} % "
            f"({100 * row['waiting_slowest']:.2f} to "
            f"{100 * row['waiting_fastest']:.2f})",
            f"{100 * row['waiting_kept_median']:.2f} %",
            f"{row['ratio_median']:.3f} "
            f"({row['ratio_slowest']:.3f} to {row['ratio_fastest']:.3f})",
        ]
        for row in rows
    ]
    return table(head, cells)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=3.0, type=float)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument(
        "--contestants", nargs="+", choices=[*SAMPLERS, *COPIES, *MODELS]
    )
    parser.add_argument("--classes", default=CLASSES, type=int)
    parser.add_argument(
        "--peers-python",
        default=sys.executable,
        help="the interpreter of the contestants that need PyTorch",
    )
    parser.add_argument(
        "--output", default="benchmarks/results", type=pathlib.Path
    )
    parser.add_argument("--setting", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--episode", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if arguments.episode:
        # What a test looks at, whatever interpreter it needs.
        setting = arguments.setting
        iterator = episodes_of(
            setting["contestant"], setting["task"], setting["classes"]
        )
        arrays = [np.asarray(array) for array in next(iterator)]
        np.savez(arguments.episode, *arrays)
        return
    if arguments.setting:
        print(json.dumps(measure(arguments.setting, arguments.seconds)))
        return

    chosen = settings(
        arguments.parts,
        arguments.tasks,
        arguments.contestants,
        arguments.classes,
    )
    results = [(setting, []) for setting in chosen]
    left_out, known = {}, {}
    for number in range(arguments.rounds):
        for setting, measured in results:
            name = setting["contestant"]
            if name in left_out:
                continue
            result = run(setting, arguments.seconds, arguments.peers_python)
            if "missing" in result:
                left_out[name] = result["missing"]
                print(
                    f"{name}: left out, {result['missing']} is not installed",
                    flush=True,
                )
                continue
            measured.append(result)
            for library, version in result["versions"].items():
                known.setdefault(library, [])
                if version not in known[library]:
                    known[library].append(version)
            where = f"{setting['task']}, " if setting["task"] else ""
            print(
                f"round {number + 1}: {where}{name}: {result['rate']:,.4g}/s",
                flush=True,
            )

    rows = sampler_rows(results, arguments.tasks)
    waiting = input_rows(results)
    machine = {
        **{name: ", ".join(found) for name, found in known.items()},
        "cores": os.cpu_count(),
        "threads": THREADS,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    text = ""
    if rows:
        text += sampler_table(rows)
    for name, library in left_out.items():
        text += f"\n{name}: left out, {library} is not installed.\n"
    if waiting:
        text += f"\n{input_table(waiting)}"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "episodes.md").write_text(text)
    report = {
        "machine": machine,
        "samplers": rows,
        "input": waiting,
        "left_out": left_out,
    }
    (arguments.output / "episodes.json").write_text(
        json.dumps(report, indent=2) + "\n"
    )
    print(f"\n{text}\n{machine}")


if __name__ == "__main__":
    main()
