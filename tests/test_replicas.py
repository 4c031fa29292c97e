import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import replicas
from tests import workers
from tests.algorithms.contract import blob_episodes


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_known_size_is_checked_at_once(training):
    episodes = blob_episodes(meta_batch_size=5)
    with pytest.raises(ValueError, match="Received: a meta-batch of 5 for 4"):
        replicas.check_shares(episodes, 32, 4, training)
    for count in (1, 5):
        assert replicas.check_shares(episodes, 32, count, training) is episodes


@pytest.mark.parametrize("training, refused", [(True, 6), (False, 5)])
def test_a_batch_of_unknown_size_is_checked_when_it_comes(training, refused):
    sizes = [8, 4, refused]
    data = tf.data.Dataset.from_tensor_slices(sizes)
    data = data.map(lambda size: ({"x": tf.zeros([size, 2])}, tf.zeros([size])))
    checked = iter(replicas.check_shares(data, 32, 4, training))
    for size in sizes[:2]:
        x, y = next(checked)
        assert x["x"].shape == (size, 2) and y.shape == (size,)
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=rf"The tasks of a meta-batch must .*4 replicas.*\[{refused}\]",
    ):
        next(checked)


@pytest.mark.parametrize(
    "tasks, batch_size, refused", [(16, 8, None), (18, 8, 2), (3, 32, 3)]
)
def test_arrays_are_checked_by_their_batches(tasks, batch_size, refused):
    x = {"support_x": np.zeros((tasks, 2)), "support_y": np.zeros((tasks, 1))}
    if refused is None:
        assert replicas.check_shares(x, batch_size, 4, True) is x
        return
    with pytest.raises(
        ValueError, match=f"Received: a meta-batch of {refused}"
    ):
        replicas.check_shares(x, batch_size, 4, True)


def test_one_replica_draws_for_itself():
    assert replicas.own_share(lambda tasks: list(range(tasks)), 3) == [0, 1, 2]


def test_a_lost_worker_is_named_and_other_errors_stay():
    with pytest.raises(RuntimeError, match="'Socket closed'.*start all"):
        with replicas.naming_lost_workers():
            raise tf.errors.UnavailableError(
                None, None, "Collective ops is aborted by: Socket closed\nMore"
            )
    with pytest.raises(tf.errors.InvalidArgumentError, match="another"):
        with replicas.naming_lost_workers():
            raise tf.errors.InvalidArgumentError(None, None, "another")


def test_refuses_strategies_that_are_not_supported():
    strategy = tf.distribute.experimental.CentralStorageStrategy()
    with strategy.scope():
        with pytest.raises(
            ValueError,
            match="one of MirroredStrategy, MultiWorkerMirroredStrategy.*"
            "Received: .*`CentralStorageStrategy`",
        ):
            keras_meta.PrototypicalNetwork(
                keras_meta.backbones.mlp((8,), (16,), outputs=4)
            )


def test_refuses_a_model_made_outside_of_the_scope():
    model = keras_meta.PrototypicalNetwork(
        keras_meta.backbones.mlp((8,), (16,), outputs=4)
    )
    model.compile("sgd", workers.LOSS)
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        with pytest.raises(ValueError, match="scope of a `OneDeviceStrategy`"):
            model.fit(blob_episodes(), steps_per_epoch=1, verbose=0)


SCRIPT = """
import pytest
import tensorflow as tf

from keras_meta import replicas
from tests import workers
from tests.algorithms.contract import blob_episodes

strategy = workers.mirrored(4)
for size in range(1, 14):
    batch = tf.data.Dataset.range(size).batch(size)
    shares = next(iter(strategy.experimental_distribute_dataset(batch))).values
    sizes = [len(share) for share in shares]
    assert replicas.can_be_shared(size, 4, training=False) == (min(sizes) > 0)
    equal = min(sizes) == max(sizes)
    assert replicas.can_be_shared(size, 4, training=True) == equal

with strategy.scope():
    model = workers.MAKE["PrototypicalNetwork"]()
    model.compile("sgd", workers.LOSS, run_eagerly=True)
with pytest.raises(ValueError, match="multiple of 4"):
    model.fit(blob_episodes(6), steps_per_epoch=1, verbose=0)
with pytest.raises(ValueError, match="to have one.*multiple of 4"):
    model.fit(
        blob_episodes(4, episodes=4),
        validation_data=blob_episodes(5),
        validation_steps=1,
        verbose=0,
    )
# Its meta-batches differ in size.
with pytest.raises(tf.errors.InvalidArgumentError, match="must divide by"):
    model.fit(blob_episodes(4, episodes=6), verbose=0)
with strategy.scope():
    model = workers.MAKE["MAML"]()
    model.compile("sgd", workers.LOSS, jit_compile=True)
with pytest.raises(ValueError, match="jit_compile=True and 4 replicas"):
    model.fit(blob_episodes(4), steps_per_epoch=1, verbose=0)
print("refused")
"""


def test_four_devices_refuse_what_they_cannot_share():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=workers.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "refused" in done.stdout
