"""Trains, adapts and exports an agent: whether meta-RL works as installed."""

import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

import keras_meta
import keras_meta.rl

environment = keras_meta.rl.environments.PointNavigation(horizon=10)
policy = keras_meta.rl.KerasDistributionNetwork(
    environment.observation_spec(),
    environment.action_spec(),
    keras_meta.backbones.mlp((2,), (8,), outputs=None),
)
agent = keras_meta.rl.MAMLAgent(
    environment.time_step_spec(),
    environment.action_spec(),
    policy,
    rollouts=2,
)
model = keras_meta.rl.AgentModel(agent, environment)
model.compile(keras.optimizers.Adam(0.01))
history = model.fit(environment.tasks(3), steps_per_epoch=2, verbose=0)
assert np.isfinite(history.history["return_after"]).all()
agent.adapt(environment).action(environment.reset())
with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory) / "agent"
    agent.export(path)
    assert "adapt" in tf.saved_model.load(str(path)).signatures
