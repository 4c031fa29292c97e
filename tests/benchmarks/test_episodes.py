import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "episodes.py"
# Where PyTorch is, if not here: the contestants that need it are left out
# where it is missing.
PEERS_PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)
CLASSES = 25


def load():
    spec = importlib.util.spec_from_file_location("benchmark_episodes", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = load()


def run(*arguments):
    return subprocess.run(
        [sys.executable, PATH, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_measures_contestants_side_by_side(tmp_path):
    task = "5-way 1-shot 15-query"
    names = [
        "keras_meta, meta-batches of 8",
        "numpy, uint8",
        "numpy, float32 beforehand",
        "torch gather",
        "easyfsl, 0 workers",
        *benchmark.COPIES,
    ]
    done = run(
        "--rounds=1",
        "--seconds=0.05",
        "--parts=samplers",
        f"--classes={CLASSES}",
        f"--peers-python={PEERS_PYTHON}",
        f"--output={tmp_path}",
        "--tasks",
        task,
        "--contestants",
        *names,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "episodes.json").read_text())
    left_out = report["left_out"]
    assert all(name.startswith(("torch", "easyfsl")) for name in left_out)
    for name, library in left_out.items():
        assert f"{name}: left out, {library} is not installed" in done.stdout
    rows = report["samplers"]
    measured = [name for name in names if name not in left_out]
    assert [row["contestant"] for row in rows] == measured
    for row in rows:
        assert row["task"] == task
        assert 0 < row["slowest"] <= row["median"] <= row["fastest"]
        assert row["megabytes"] == pytest.approx(row["median"] * 0.25088)
        assert row["share_of_limit"] > 0
    # Without easyfsl, there is nothing to compare with.
    times = [row["times_library"] for row in rows]
    assert (None in times) == ("easyfsl, 0 workers" in left_out)
    text = (tmp_path / "episodes.md").read_text()
    assert all(f"| {task} | {name} |" in text for name in measured)
    assert report["machine"]["keras_meta"] and report["machine"]["numpy"]


def test_measures_waiting():
    setting = {
        "part": "input",
        "contestant": "PrototypicalNetwork, 1 task",
        "classes": CLASSES,
    }
    result = benchmark.measure_input(setting, 0.01, filters=2)
    assert 0 < result["waiting"] < 1
    assert 0 < result["waiting_kept"] < 1
    assert result["rate"] > 0
    assert result["ratio"] == pytest.approx(
        result["rate"] / result["rate_kept"]
    )
    rows = benchmark.input_rows([({**setting, "task": None}, [result] * 2)])
    assert [row["model"] for row in rows] == [setting["contestant"]]
    assert f"{100 * result['waiting']:.2f} %" in benchmark.input_table(rows)


def test_settings_are_all_pairs():
    tasks = list(benchmark.TASKS)
    chosen = benchmark.settings(benchmark.PARTS, tasks, None, CLASSES)
    assert len(chosen) == (
        len(tasks) * len(benchmark.SAMPLERS)
        + len(benchmark.COPIES)
        + len(benchmark.MODELS)
    )


@pytest.mark.parametrize("name", benchmark.SAMPLERS)
def test_episode_is_right(name, tmp_path):
    task = "20-way 5-shot 15-query"
    ways, shots, queries = benchmark.TASKS[task]
    make, options, is_peer = benchmark.SAMPLERS[name]
    images, labels = benchmark.make_data(CLASSES)
    if is_peer:
        arrays = episode_of_peer(name, task, tmp_path / "episode.npz")
    else:
        if make is benchmark.of_keras_meta:
            # The number of threads cannot be set once TensorFlow runs.
            make = without_threads(make)
        episodes = make(images, labels, ways, shots, queries, **options)
        arrays = [np.asarray(array) for array in next(episodes)]
    if "meta_batch_size" in options:
        assert {len(array) for array in arrays} == {options["meta_batch_size"]}
        arrays = [array[-1] for array in arrays]
    support_x, support_y, query_x, query_y = arrays
    assert support_x.dtype == query_x.dtype == "float32"
    pixels = (28, 28)
    assert support_x.squeeze().shape == (ways * shots, *pixels)
    assert query_x.squeeze().shape == (ways * queries, *pixels)
    assert np.bincount(support_y).tolist() == [shots] * ways
    assert np.bincount(query_y).tolist() == [queries] * ways
    # Noise tells which example an image is.
    place = {image.tobytes(): index for index, image in enumerate(images)}
    drawn = [
        place[np.round(image.squeeze() * 255).astype("uint8").tobytes()]
        for image in (*support_x, *query_x)
    ]
    # No example twice, so that none of the support set is a query.
    assert len(set(drawn)) == len(drawn)
    episode_y = [*support_y.tolist(), *query_y.tolist()]
    pairs = set(zip(labels[drawn].tolist(), episode_y))
    assert len(pairs) == ways


def without_threads(make):
    def patched(*arguments, **options):
        import tensorflow as tf

        threading = tf.config.threading
        names = [
            "set_intra_op_parallelism_threads",
            "set_inter_op_parallelism_threads",
        ]
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                patch.setattr(threading, name, lambda count: None)
            yield next(make(*arguments, **options))

    return patched


def episode_of_peer(name, task, path):
    setting = {"contestant": name, "task": task, "classes": CLASSES}
    done = subprocess.run(
        [
            PEERS_PYTHON,
            PATH,
            "--setting",
            json.dumps(setting),
            "--episode",
            path,
        ],
        capture_output=True,
        text=True,
        timeout=200,
    )
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    with np.load(path) as arrays:
        return [arrays[key] for key in arrays.files]
