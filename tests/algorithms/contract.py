"""What every algorithm must do, whatever it is."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta


def blobs(classes=20, examples=20, size=8):
    """Classes that a few examples tell apart: noisy points of their own."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(classes, 1, size))
    x = centers + 0.3 * generator.normal(size=(classes, examples, size))
    labels = np.repeat(np.arange(classes), examples)
    return x.reshape(-1, size).astype("float32"), labels


def blob_episodes(meta_batch_size=4, **arguments):
    settings = dict(ways=3, shots=2, queries=4, meta_batch_size=meta_batch_size)
    return keras_meta.episodes.from_arrays(*blobs(), **settings | arguments)


@functools.cache
def first_batch():
    """Returns the first meta-batch; nothing changes its tensors."""
    return next(iter(blob_episodes()))


def one_by_one(model):
    """Runs the tasks of a model one by one, if there is a choice.

    Vectorized, TensorFlow takes twice as long to trace. That the results are
    the same is tested elsewhere, and `fit()` below runs as it would.
    """
    if hasattr(model, "task_mapping"):
        model.task_mapping = "sequential"
    return model


def untraced(model):
    """Runs a model task by task, and not as a graph.

    To trace a training step takes far longer than to take one. That graphs
    compute the same is tested below, of every algorithm.
    """
    model.run_eagerly = True
    return one_by_one(model)


class VariantContract:
    """What a second variant of an algorithm must do, where the first does all.

    Subclass it as `TestMyVariant` and write `make_model()`.
    """

    support_order_matters = False

    def make_model(self):
        """Returns a compiled model for 3-way episodes of 8 features."""
        raise NotImplementedError

    def training_data(self):
        """Returns an endless data set that `fit()` takes."""
        return blob_episodes()

    @pytest.fixture
    def batch(self):
        return first_batch()

    def test_is_a_keras_model_of_the_episode_contract(self, batch):
        model = one_by_one(self.make_model())
        # As a graph it answers below, exported and in `evaluate()`.
        model.run_eagerly = True
        assert isinstance(model, keras_meta.EpisodicModel)
        assert isinstance(model, keras.Model)
        assert model(batch[0]).shape == (4, 12, 3)
        assert model.predict(batch[0], verbose=0).shape == (4, 12, 3)
        symbolic = {
            key: keras.KerasTensor(value.shape, value.dtype.name)
            for key, value in batch[0].items()
        }
        assert model.compute_output_spec(symbolic).shape == (4, 12, 3)

    # How a training step is run, beside as a graph.
    ways_to_run = (dict(jit_compile=True),)

    @pytest.mark.slow
    def test_ways_to_run_give_equal_steps(self):
        self.compare_ways_to_run()

    def compare_ways_to_run(self):
        results = []
        for how in (dict(jit_compile=False), *self.ways_to_run):
            keras.utils.set_random_seed(0)
            model = one_by_one(self.make_model())
            model.compile(
                keras.optimizers.SGD(0.1),
                loss=model.loss,
                metrics=["accuracy"],
                **how,
            )
            assert model.jit_compile is how.get("jit_compile", False)
            logs = model.train_on_batch(
                *next(iter(self.training_data())), return_dict=True
            )
            results.append((logs, model.get_weights()))
        for logs, weights in results[1:]:
            assert set(logs) == set(results[0][0])
            for name, value in results[0][0].items():
                np.testing.assert_allclose(
                    value, logs[name], rtol=1e-4, atol=1e-5
                )
            for one, other in zip(results[0][1], weights):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    # Of each algorithm `tests/test_saving_table.py` does so, too.
    @pytest.mark.slow
    def test_keras_file_keeps_predictions_and_training(self, batch, tmp_path):
        model = one_by_one(self.make_model())
        examples = next(iter(self.training_data()))
        # To trace it three times would take most of the time of this test.
        model.run_eagerly = True
        model.train_on_batch(*examples)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        loaded.run_eagerly = True
        for name, value in model.get_config().items():
            # The networks' configs are Keras's, not quite stable ones.
            if name not in ("network", "relation", "encoder"):
                assert loaded.get_config()[name] == value
        np.testing.assert_array_equal(model(batch[0]), loaded(batch[0]))
        for either in (model, loaded):
            either.train_on_batch(*examples)
        for expected, actual in zip(model.get_weights(), loaded.get_weights()):
            np.testing.assert_array_equal(expected, actual)

    def test_order_of_the_support_set(self, batch):
        model = one_by_one(self.make_model())
        x = batch[0]
        order = np.random.default_rng(0).permutation(6)
        shuffled = {
            **x,
            "support_x": tf.gather(x["support_x"], order, axis=1),
            "support_y": tf.gather(x["support_y"], order, axis=1),
        }
        same = np.allclose(model(x), model(shuffled), atol=1e-5)
        assert same is not self.support_order_matters

    def test_tasks_do_not_influence_each_other(self, batch):
        model = self.make_model()
        together = model(batch[0])
        model = one_by_one(model)
        for task in range(4):
            alone = {
                key: value[task : task + 1] for key, value in batch[0].items()
            }
            np.testing.assert_allclose(
                together[task], model(alone)[0], rtol=1e-4, atol=1e-5
            )

    def test_adapt_gives_an_ordinary_model(self, batch, tmp_path):
        model = one_by_one(self.make_model())
        x = batch[0]
        adapted = model.adapt(x["support_x"][0], x["support_y"][0])
        assert isinstance(adapted, keras.Model)
        assert not isinstance(adapted, keras_meta.EpisodicModel)
        predictions = adapted.predict(x["query_x"][0], verbose=0)
        # Of logits, only their softmax is promised.
        np.testing.assert_allclose(
            keras.ops.softmax(predictions),
            keras.ops.softmax(model(x)[0]),
            rtol=1e-4,
            atol=1e-5,
        )
        # Called, they need not be traced once more.
        answers = adapted(x["query_x"][0])
        np.testing.assert_allclose(answers, predictions, rtol=1e-4, atol=1e-5)
        again = model.adapt(
            x["support_x"][0], x["support_y"][0].numpy().tolist()
        )
        np.testing.assert_array_equal(answers, again(x["query_x"][0]))
        adapted.save(tmp_path / "adapted.keras")
        loaded = keras.saving.load_model(tmp_path / "adapted.keras")
        np.testing.assert_array_equal(answers, loaded(x["query_x"][0]))

    # Of each algorithm `tests/test_saving_table.py` does so, too.
    @pytest.mark.slow
    def test_exported_model_adapts_in_plain_tensorflow(self, batch, tmp_path):
        model = one_by_one(self.make_model())
        model.export(tmp_path / "exported", verbose=False)
        endpoint = tf.saved_model.load(tmp_path / "exported").signatures[
            "adapt_and_predict"
        ]
        for x in (batch[0], next(iter(blob_episodes(2, shots=3)))[0]):
            (answer,) = endpoint(**x).values()
            np.testing.assert_allclose(answer, model(x), rtol=1e-4, atol=1e-5)


class AlgorithmContract(VariantContract):
    """Subclass it as `TestMyAlgorithm` and write `make_model()`."""

    ways_to_run = (dict(jit_compile=True), dict(run_eagerly=True))

    # For `fit()` of two epochs. More where learning is slow at first.
    steps_per_epoch = 60

    def test_ways_to_run_give_equal_steps(self):
        self.compare_ways_to_run()

    def test_fit_lowers_the_loss_and_does_not_trace_again(self, monkeypatch):
        traces = []
        model = self.make_model()
        train_step = type(model).train_step

        def counted(self, data):
            traces.append(1)
            return train_step(self, data)

        monkeypatch.setattr(type(model), "train_step", counted)
        test = blob_episodes(episodes=40, seed=1)
        before = model.evaluate(test, verbose=0, return_dict=True)
        losses, traced = [], []
        for _ in range(2):
            history = model.fit(
                self.training_data(),
                steps_per_epoch=self.steps_per_epoch,
                verbose=0,
            )
            losses.append(history.history["loss"][0])
            traced.append(len(traces))
        # Once for all. (It would be twice if the step created variables.)
        assert traced == [1, 1]
        after = model.evaluate(test, verbose=0, return_dict=True)
        assert after["loss"] < 0.7 * before["loss"]
        assert after["accuracy"] > 0.7
        assert losses[1] < losses[0]

    def test_calling_leaves_no_state(self, batch):
        model = one_by_one(self.make_model())
        before = [v.numpy() for v in model.variables]
        first = model(batch[0])
        model(next(iter(blob_episodes(seed=5)))[0])
        np.testing.assert_array_equal(first, model(batch[0]))
        for old, variable in zip(before, model.variables):
            np.testing.assert_array_equal(old, variable.numpy())

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        """One for all that is refused, which leaves it as it was."""
        return cls().make_model()

    @pytest.mark.parametrize("key", ["support_x", "support_y", "query_x"])
    def test_refuses_an_episode_without_a_part(self, model, batch, key):
        x = {name: value for name, value in batch[0].items() if name != key}
        for call in (
            lambda: model(x),
            lambda: model.fit(x, batch[1], verbose=0),
            lambda: model.evaluate(x, batch[1], verbose=0),
            lambda: model.predict(x, verbose=0),
            lambda: model.train_on_batch(x, batch[1]),
        ):
            with pytest.raises(ValueError, match=f"Received: .*missing.*{key}"):
                call()

    def test_refuses_an_unknown_part(self, model, batch):
        with pytest.raises(ValueError, match="unknown: .*'suport_x'"):
            model({**batch[0], "suport_x": batch[0]["support_x"]})

    def test_refuses_an_empty_support_set(self, model, batch):
        x = {
            **batch[0],
            "support_x": batch[0]["support_x"][:, :0],
            "support_y": batch[0]["support_y"][:, :0],
        }
        with pytest.raises(ValueError, match="at least one example.*Received"):
            model.fit(x, batch[1], verbose=0)
        with pytest.raises(ValueError, match="at least one example.*Received"):
            model.adapt(np.zeros((0, 8), "float32"), np.zeros(0, "int32"))

    def test_refuses_parts_that_do_not_fit(self, model, batch):
        x = {**batch[0], "support_y": batch[0]["support_y"][:, :-1]}
        with pytest.raises(ValueError, match="same number of examples"):
            model.fit(x, batch[1], verbose=0)
        with pytest.raises(ValueError, match="same number of examples"):
            model.fit(batch[0], batch[1][:, :-1], verbose=0)

    def test_refuses_more_ways_than_outputs(self, model):
        with pytest.raises(ValueError, match="labels from 0 to 3.*3 outputs"):
            model.fit(blob_episodes(ways=4), steps_per_epoch=1, verbose=0)

    def test_refuses_labels_that_are_not_integers(self, model, batch):
        x = {**batch[0], "support_y": tf.cast(batch[0]["support_y"], "float32")}
        with pytest.raises(TypeError, match="integers.*Received.*float32"):
            model.fit(x, batch[1], verbose=0)

    def test_refuses_an_empty_and_an_endless_data_set(self, model):
        with pytest.raises(ValueError, match="empty data set"):
            model.fit(blob_episodes(episodes=4).take(0), verbose=0)
        with pytest.raises(ValueError, match="steps_per_epoch"):
            model.fit(blob_episodes(), verbose=0)
        with pytest.raises(ValueError, match="validation_steps"):
            model.fit(
                blob_episodes(episodes=4),
                validation_data=blob_episodes(),
                verbose=0,
            )

    def test_refuses_an_unbuilt_network(self, model):
        network = keras.Sequential([keras.layers.Dense(3)])
        config = {
            **model.get_config(),
            "network": keras.saving.serialize_keras_object(network),
        }
        with pytest.raises(ValueError, match="must be built.*Received"):
            type(model).from_config(config)
