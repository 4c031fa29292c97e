"""
Title: Training on several machines
Description: The same script on each of them; it survives the loss of one.
Accelerator: None

Runs alone, or once on each machine with `TF_CONFIG`; see docs/distributed.md.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

import keras_meta

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--output",
    default="multi_worker_output",
    type=pathlib.Path,
    help="a folder that all machines see",
)
parser.add_argument("--epochs", default=5, type=int)
parser.add_argument("--steps", default=100, type=int)
parser.add_argument("--meta-batch-size", default=8, type=int)
parser.add_argument("--test-episodes", default=400, type=int)
parser.add_argument("--seed", default=0, type=int)
arguments = parser.parse_args()

"""
## The workers

The strategy comes before anything else of TensorFlow. It reads in `TF_CONFIG`
who the workers are and which of them this is, and waits until all are there.
"""

strategy = tf.distribute.MultiWorkerMirroredStrategy()
worker = strategy.cluster_resolver.task_id or 0
is_first = worker == 0
keras.utils.set_random_seed(arguments.seed)
arguments.output.mkdir(parents=True, exist_ok=True)
started = time.time()


def heading(text):
    seconds = time.time() - started
    print(f"\n=== {text} (worker {worker}, {seconds:.0f} s)", flush=True)


"""
## Episodes

Each worker makes meta-batches that no other makes: of all of them, every
second one where there are two workers. The test has the same episodes for all
workers, and TensorFlow divides each meta-batch among them.
"""

heading(f"1. Episodes for {strategy.num_replicas_in_sync} replicas")
glyphs = keras_meta.episodes.glyphs()
train, test = keras_meta.episodes.class_split(
    glyphs.labels, groups=glyphs.scripts
)


def episodes(classes, meta_batch_size, **settings):
    return keras_meta.episodes.from_arrays(
        glyphs.images,
        glyphs.labels,
        ways=5,
        shots=1,
        queries=5,
        classes=classes,
        meta_batch_size=meta_batch_size,
        **settings,
    )


def episodes_of_worker(context):
    return episodes(
        train,
        context.get_per_replica_batch_size(arguments.meta_batch_size),
        seed=arguments.seed,
        shard=(context.input_pipeline_id, context.num_input_pipelines),
    )


train_episodes = strategy.distribute_datasets_from_function(episodes_of_worker)
test_episodes = episodes(
    test, arguments.meta_batch_size, episodes=arguments.test_episodes, seed=1
)

"""
## Training

The model is made in the scope of the strategy, and its weights are the same on
all workers. After each epoch the first worker writes them down. Where a worker
is lost, the others end with an error; started again, all go on from there.
"""

heading("2. Training")
with strategy.scope():
    model = keras_meta.PrototypicalNetwork(
        keras_meta.backbones.conv4(filters=16), sharpness=0.1
    )
    model.compile(
        keras.optimizers.Adam(0.001),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
backup = keras.callbacks.BackupAndRestore(
    str(arguments.output / "backup"),
    # All read it when they start, but one of them writes.
    save_freq="epoch" if is_first else sys.maxsize,
    delete_checkpoint=False,
)
told = keras.callbacks.LambdaCallback(
    on_epoch_begin=lambda epoch, logs: heading(f"Epoch {epoch + 1}")
)
model.fit(
    train_episodes,
    steps_per_epoch=arguments.steps,
    epochs=arguments.epochs,
    callbacks=[backup, told],
    verbose=2 if is_first else 0,
)

"""
## Scripts never seen

All workers measure together, and all get the same figures.
"""

heading("3. Scripts never seen")
figures = model.evaluate(test_episodes, verbose=0, return_dict=True)
print(f"accuracy {figures['accuracy']:.1%} (chance {1 / 5:.0%})")
if is_first:
    model.save(arguments.output / "multi_worker.keras")
    print(f"model: {(arguments.output / 'multi_worker.keras').resolve()}")
heading("Done")
