import json
import re
import time

import keras

import keras_meta  # noqa: F401  (registers what is loaded)
from tests import workers
from tests.examples.running import run_example


def test_multi_worker_runs_alone(tmp_path):
    printed = run_example(
        "multi_worker",
        "--epochs=1",
        "--steps=2",
        "--meta-batch-size=2",
        "--test-episodes=4",
        output=tmp_path,
    )
    assert "Episodes for 1 replicas" in printed
    assert re.search(r"^accuracy \d+\.\d% \(chance 20%\)$", printed, re.M)
    keras.saving.load_model(tmp_path / "multi_worker.keras")


def test_a_killed_worker_ends_the_other_and_both_go_on(tmp_path):
    def command(index):
        return [
            "examples/multi_worker.py",
            f"--output={tmp_path}",
            "--epochs=4",
            "--steps=20",
            "--meta-batch-size=2",
            "--test-episodes=4",
        ]

    path = {"PYTHONPATH": str(workers.ROOT)}
    processes = workers.start(2, command, **path)
    written = tmp_path / "backup" / "training_metadata.json"
    while not written.exists() and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].kill()
    # Were it to wait for the other, it would be killed, too, and not return 1.
    survivor, _ = workers.finish(processes, timeout=90)
    assert processes[0].returncode == 1, survivor[-3000:]
    assert "RuntimeError: All workers must stay until" in survivor
    assert "BackupAndRestore" in survivor
    epochs = json.loads(written.read_text())["epoch"]
    assert 1 <= epochs < 4

    processes = workers.start(2, command, **path)
    printed = workers.finish(processes)
    accuracies = set()
    for process, text in zip(processes, printed):
        assert process.returncode == 0, text[-3000:]
        started = re.findall(r"=== Epoch (\d)", text)
        assert started == [str(epoch + 1) for epoch in range(epochs, 4)]
        accuracies.add(re.search(r"accuracy (\S+)%", text)[1])
    assert len(accuracies) == 1
    keras.saving.load_model(tmp_path / "multi_worker.keras")
