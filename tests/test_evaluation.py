import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta


def interval_of(values):
    """Half of the 95 % interval of the mean, by the textbook."""
    return 1.959964 * np.std(values, ddof=1) / np.sqrt(len(values))


def parts(tasks, support=2, query=4, size=3):
    """Returns inputs of zeros; baselines here do not look at them."""
    return {
        "support_x": np.zeros((tasks, support, size), "float32"),
        "support_y": np.zeros((tasks, support), "int32"),
        "query_x": np.zeros((tasks, query, size), "float32"),
    }


def dataset_of(*batches):
    """Returns a data set of meta-batches, which may be of different sizes."""
    spec = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype),
        batches[0],
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=spec
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))


def classification_batch(answers, weight=None):
    """A meta-batch where query q of episode e is right if `answers[e, q]`.

    The label of a query is written into its input, or another one is.
    """
    answers = np.asarray(answers)
    x = parts(len(answers), query=answers.shape[1])
    labels = np.arange(answers.size).reshape(answers.shape) % 3
    x["query_x"][..., 0] = np.where(answers, labels, (labels + 1) % 3)
    return (x, labels) if weight is None else (x, labels, weight)


def read_label(x):
    """A baseline that says what is written in the input."""
    return tf.one_hot(tf.cast(x["query_x"][..., 0], "int32"), 3)


def zeros(x):
    return tf.zeros_like(x["query_x"])


def sinusoids(**settings):
    arguments = dict(shots=5, queries=7, meta_batch_size=4, episodes=10)
    return keras_meta.episodes.sinusoids(**arguments | settings)


def sinusoid_model(evaluation_steps=3):
    return keras_meta.MAML(
        keras_meta.backbones.mlp(hidden_units=(8,)),
        inner_learning_rate=0.02,
        inner_loss="mse",
        evaluation_steps=evaluation_steps,
    )


def joined(dataset):
    """Returns all episodes as one meta-batch of arrays."""
    batches = list(dataset.as_numpy_iterator())
    return tf.nest.map_structure(
        lambda *leaves: np.concatenate(leaves), *batches
    )


def squared_errors(labels, predictions):
    """Of each episode, in double precision."""
    differences = labels.astype("float64") - predictions
    return np.mean(differences**2, axis=tuple(range(1, differences.ndim)))


def test_mean_and_interval_are_those_of_the_episodes():
    answers = np.random.default_rng(0).uniform(size=(40, 4)) < 0.7
    batches = map(classification_batch, np.split(answers, 5))
    result = keras_meta.evaluate_episodes(read_label, dataset_of(*batches))
    values = answers.mean(axis=1)
    assert np.allclose(result.values, values)
    assert result.mean == pytest.approx(values.mean())
    assert result.interval == pytest.approx(interval_of(values), rel=1e-5)
    assert result.count == 40
    assert result.metric == "accuracy"
    assert result.steps == [(result.mean, result.interval)]


def test_the_interval_is_over_episodes_and_not_queries():
    # 100 queries an episode, all right or all wrong: two values, 0 and 1.
    answers = np.repeat([[True], [False]], 100, axis=1)
    dataset = dataset_of(classification_batch(answers))
    result = keras_meta.evaluate_episodes(read_label, dataset)
    assert result.mean == 0.5
    # sigma / sqrt(n) = sqrt(1/2) / sqrt(2) = 1/2.
    assert result.interval == pytest.approx(1.959964 / 2, rel=1e-5)
    # And where all episodes score the same there is no spread between them.
    answers = np.tile([True, False], (6, 50))
    dataset = dataset_of(classification_batch(answers))
    result = keras_meta.evaluate_episodes(read_label, dataset)
    assert (result.mean, result.interval) == (0.5, 0.0)


def test_a_smaller_last_meta_batch_counts_by_its_episodes():
    answers = np.ones((9, 2), bool)
    answers[8] = False
    dataset = dataset_of(
        classification_batch(answers[:8]), classification_batch(answers[8:])
    )
    result = keras_meta.evaluate_episodes(read_label, dataset)
    assert result.count == 9
    assert result.mean == pytest.approx(8 / 9)
    assert result.values.tolist() == [1.0] * 8 + [0.0]


def test_sample_weights_weigh_the_queries_of_an_episode():
    answers = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1]]
    weights = [[1, 1, 0, 0], [3, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]]
    batch = classification_batch(answers, np.array(weights, "float32"))
    result = keras_meta.evaluate_episodes(read_label, dataset_of(batch))
    values = np.array([1.0, 0.75, 0.75])
    assert np.allclose(result.values, values)
    # Episodes count alike, whatever the sum of their weights.
    assert result.mean == pytest.approx(values.mean())
    assert result.interval == pytest.approx(interval_of(values), rel=1e-5)


def test_an_episode_whose_queries_all_weigh_nothing_is_an_error():
    weights = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], "float32")
    batch = classification_batch(np.ones((2, 4)), weights)
    with pytest.raises(ValueError, match="weight.*Received"):
        keras_meta.evaluate_episodes(read_label, dataset_of(batch))


def test_regression_is_measured_by_the_squared_error():
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(6, 4, 2)).astype("float32")
    predictions = generator.normal(size=(6, 4, 2)).astype("float32")
    dataset = dataset_of((parts(6), labels))
    result = keras_meta.evaluate_episodes(lambda x: predictions, dataset)
    assert result.metric == "mean_squared_error"
    values = squared_errors(labels, predictions)
    assert np.allclose(result.values, values, rtol=1e-5)
    assert result.interval == pytest.approx(interval_of(values), rel=1e-5)


def test_queries_of_several_axes_are_averaged():
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(5, 4, 3, 2)).astype("float32")
    predictions = np.zeros_like(labels)
    dataset = dataset_of((parts(5), labels))
    result = keras_meta.evaluate_episodes(lambda x: predictions, dataset)
    values = squared_errors(labels, predictions)
    assert np.allclose(result.values, values, rtol=1e-5)


def test_a_metric_may_be_named():
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(6, 4, 2)).astype("float32")
    dataset = dataset_of((parts(6), labels))
    result = keras_meta.evaluate_episodes(
        lambda x: tf.zeros((6, 4, 2)), dataset, metric="mean_absolute_error"
    )
    assert result.metric == "mean_absolute_error"
    assert np.allclose(result.values, np.abs(labels).mean(axis=(1, 2)))


def test_a_metric_may_be_a_function():
    def largest_error(y_true, y_pred):
        return tf.reduce_max(tf.abs(y_true - y_pred), axis=-1)

    labels = np.arange(24.0, dtype="float32").reshape(3, 4, 2)
    result = keras_meta.evaluate_episodes(
        lambda x: tf.zeros((3, 4, 2)),
        dataset_of((parts(3), labels)),
        metric=largest_error,
    )
    assert result.metric == "largest_error"
    assert result.values.tolist() == [4.0, 12.0, 20.0]


def test_named_accuracy_is_reported_as_accuracy():
    dataset = dataset_of(classification_batch([[1, 0], [1, 1]]))
    result = keras_meta.evaluate_episodes(
        read_label, dataset, metric="sparse_categorical_accuracy"
    )
    assert (result.metric, result.mean) == ("accuracy", 0.75)
    top_2 = keras_meta.evaluate_episodes(
        read_label, dataset, metric="sparse_top_k_categorical_accuracy"
    )
    assert top_2.metric == "sparse_top_k_categorical_accuracy"


def test_a_baseline_may_be_a_keras_model():
    class Centroids(keras.Model):
        def call(self, x):
            way = tf.one_hot(x["support_y"], 3)
            centroids = tf.linalg.matmul(way, x["support_x"], transpose_a=True)
            centroids /= tf.reduce_sum(way, axis=1)[..., None]
            distances = x["query_x"][:, :, None] - centroids[:, None]
            return -tf.reduce_sum(distances**2, axis=-1)

    points = np.random.default_rng(0).normal(size=(3, 8, 5)).astype("float32")
    points += 100 * np.arange(3)[:, None, None]
    dataset = keras_meta.episodes.from_arrays(
        points.reshape(24, 5),
        np.repeat(np.arange(3), 8),
        ways=3,
        shots=2,
        queries=3,
        episodes=6,
    )
    result = keras_meta.evaluate_episodes(Centroids(), dataset)
    assert (result.mean, result.interval, result.count) == (1.0, 0.0, 6)


def test_steps_stop_after_so_many_meta_batches():
    answers = np.random.default_rng(0).uniform(size=(12, 4)) < 0.5
    dataset = dataset_of(*map(classification_batch, np.split(answers, 4)))
    for endless in (dataset, dataset.repeat()):
        result = keras_meta.evaluate_episodes(read_label, endless, steps=2)
        assert result.count == 6
        assert np.allclose(result.values, answers[:6].mean(axis=1))
    # More than there are is all of them.
    result = keras_meta.evaluate_episodes(read_label, dataset, steps=100)
    assert result.count == 12


def test_one_episode_has_no_interval():
    dataset = dataset_of(classification_batch([[1, 0, 1, 1]]))
    result = keras_meta.evaluate_episodes(read_label, dataset)
    assert (result.mean, result.count) == (0.75, 1)
    assert np.isnan(result.interval)


def test_text_tells_the_metric_the_mean_the_interval_and_the_count():
    answers = np.repeat([[True], [False]], 3, axis=1)
    dataset = dataset_of(classification_batch(answers))
    result = keras_meta.evaluate_episodes(read_label, dataset)
    assert str(result).splitlines() == [
        "accuracy 0.5000 ± 0.9800 (95 % interval over 2 episodes)",
        "on episodes of another source",
    ]


def test_text_tells_the_protocol():
    dataset = keras_meta.episodes.from_arrays(
        np.zeros((12, 3), "float32"),
        np.arange(12) // 4,
        ways=2,
        shots=1,
        queries=3,
        episodes=4,
        classes=[0, 2],
        seed=5,
    )
    network = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    model = keras_meta.MAML(
        network,
        inner_loss=keras.losses.SparseCategoricalCrossentropy(True),
        normalization_statistics="support",
    )
    result = keras_meta.evaluate_episodes(model, dataset, steps=1)
    assert result.protocol == (
        "arrays, 2 of 3 classes (hash c57132), 2 ways, 1 shot, 3 queries a "
        "class, seed 5, normalization statistics: support"
    )
    assert str(result).endswith(f"episodes)\non {result.protocol}")


@pytest.fixture(scope="module")
def adapted():
    """A model, episodes, what was measured, and the episodes as arrays."""
    keras.utils.set_random_seed(0)
    model, dataset = sinusoid_model(evaluation_steps=3), sinusoids()
    result = keras_meta.evaluate_episodes(model, dataset)
    return model, dataset, result, joined(dataset)


def test_an_episodic_model_is_measured_as_it_predicts(adapted):
    model, dataset, result, (_, labels) = adapted
    values = squared_errors(labels, model.predict(dataset, verbose=0))
    assert result.count == 10
    assert result.metric == "mean_squared_error"
    assert np.allclose(result.values, values, rtol=1e-4)
    assert result.mean == pytest.approx(values.mean(), rel=1e-4)
    assert result.interval == pytest.approx(interval_of(values), rel=1e-4)


def test_steps_hold_the_metric_after_each_inner_step(adapted):
    model, _, result, (x, labels) = adapted
    assert len(result.steps) == 4
    assert result.steps[-1] == (result.mean, result.interval)
    unadapted = model.network(x["query_x"].reshape(-1, 1)).numpy()
    expected = [squared_errors(labels, unadapted.reshape(labels.shape))]
    for steps in (1, 2):
        model_of_fewer = keras_meta.MAML(
            model.network,
            inner_learning_rate=0.02,
            inner_loss="mse",
            evaluation_steps=steps,
        )
        predictions = model_of_fewer.predict_on_batch(x)
        expected.append(squared_errors(labels, predictions))
    for (mean, interval), values in zip(result.steps, expected):
        assert mean == pytest.approx(values.mean(), rel=1e-4)
        assert interval == pytest.approx(interval_of(values), rel=1e-4)
    # The steps differ, so that their order is seen.
    means = [mean for mean, _ in result.steps]
    assert means[1] < means[0]
    assert len(set(np.round(means, 2))) == 4


def test_evaluating_changes_nothing(adapted):
    model, dataset, result, _ = adapted
    before = [v.numpy() for v in model.variables]
    again = keras_meta.evaluate_episodes(model, dataset, steps=1)
    assert np.array_equal(again.values, result.values[:4])
    for variable, value in zip(model.variables, before):
        assert np.array_equal(variable, value)


def test_a_compiled_model_gives_the_same_as_its_own_evaluate(adapted):
    model, _, result, (x, labels) = adapted
    model.compile(loss="mse")
    logs = model.test_on_batch(x, labels, return_dict=True)
    assert logs["loss"] == pytest.approx(result.mean, rel=1e-4)
    assert logs["loss_before"] == pytest.approx(result.steps[0][0], rel=1e-4)


def test_an_episodic_model_without_inner_steps_has_one_step():
    class Zeros(keras_meta.EpisodicModel):
        def call(self, x, training=False):
            return tf.zeros_like(x["query_x"])

    model = Zeros(keras_meta.backbones.mlp(hidden_units=()))
    dataset = sinusoids()
    result = keras_meta.evaluate_episodes(model, dataset)
    _, labels = joined(dataset)
    assert len(result.steps) == 1
    values = squared_errors(labels, np.zeros_like(labels))
    assert np.allclose(result.values, values, rtol=1e-5)


def test_endless_episodes_are_an_error():
    match = (
        "`episodes` must be finite. Received: an endless data set and "
        "steps=None. Make a fixed list with `episodes=600`, or pass `steps=`"
    )
    with pytest.raises(ValueError, match=match):
        keras_meta.evaluate_episodes(read_label, sinusoids(episodes=None))


def test_no_episodes_are_an_error():
    match = "`episodes` must hold at least one episode. Received: an empty"
    dataset = dataset_of(classification_batch([[1, 0]]))
    with pytest.raises(ValueError, match=match):
        keras_meta.evaluate_episodes(read_label, dataset.take(0))
    # A meta-batch of no episodes holds none either.
    empty = dataset_of(classification_batch(np.zeros((0, 4))))
    with pytest.raises(ValueError, match="at least one"):
        keras_meta.evaluate_episodes(read_label, empty)


def test_steps_that_are_no_positive_integer_are_an_error():
    dataset = dataset_of(classification_batch([[1, 0]]))
    for bad in (0, -1, 1.5, "2", True):
        match = "`steps` must be an integer of 1 or more. Received: steps="
        with pytest.raises(ValueError, match=match):
            keras_meta.evaluate_episodes(read_label, dataset, steps=bad)


def test_answers_that_are_not_finite_are_an_error():
    dataset = sinusoids(episodes=8)
    for bad in (float("nan"), float("inf"), -float("inf")):

        def predict(x):
            answers = np.zeros(x["query_x"].shape, "float32")
            answers[-1, -1] = bad
            return answers

        match = "predictions must be finite.*Received: NaN or Inf.*Lower the"
        with pytest.raises(ValueError, match=match):
            keras_meta.evaluate_episodes(predict, dataset)


def test_a_diverged_inner_loop_is_an_error():
    model = keras_meta.MAML(
        keras_meta.backbones.mlp(hidden_units=(8,)),
        inner_learning_rate=1e20,
        inner_loss="mse",
        evaluation_steps=4,
    )
    with pytest.raises(ValueError, match="must be finite.*Received: NaN or"):
        keras_meta.evaluate_episodes(model, sinusoids())


def test_a_metric_of_one_number_for_the_batch_is_an_error():
    match = (
        r"`metric` must return a value per query, `\[tasks, query\]`. "
        r"Received: a metric that returns shape \({}\). Leave the means"
    )
    scalars = [
        lambda y_true, y_pred: tf.reduce_mean((y_true - y_pred) ** 2),
        lambda y_true, y_pred: 0.5,
        keras.losses.MeanSquaredError(),
        keras.metrics.MeanSquaredError(),
    ]
    dataset = dataset_of((parts(4), np.zeros((4, 4, 3), "float32")))
    for metric in scalars:
        with pytest.raises(ValueError, match=match.format("")):
            keras_meta.evaluate_episodes(zeros, dataset, metric=metric)

    def of_episodes(y_true, y_pred):
        return tf.reduce_mean((y_true - y_pred) ** 2, axis=(1, 2))

    with pytest.raises(ValueError, match=match.format("4,")):
        keras_meta.evaluate_episodes(zeros, dataset, metric=of_episodes)


def test_a_metric_that_is_none_is_an_error():
    dataset = dataset_of((parts(4), np.zeros((4, 4, 3), "float32")))
    for bad in ("acuracy", "MeanSquaredError", 3, ["mean_squared_error"]):
        match = "`metric` must be a function or the name.*Received: metric="
        with pytest.raises(ValueError, match=match):
            keras_meta.evaluate_episodes(zeros, dataset, metric=bad)


def test_a_class_of_metrics_is_an_error():
    dataset = dataset_of((parts(4), np.zeros((4, 4, 3), "float32")))
    match = "`metric` must be a function.*Received: metric="
    with pytest.raises(ValueError, match=match):
        keras_meta.evaluate_episodes(
            zeros, dataset, metric=keras.metrics.MeanSquaredError
        )


def test_episodes_without_labels_are_an_error():
    x, _ = classification_batch([[1, 0]])
    with pytest.raises((TypeError, ValueError), match="label.*Received"):
        keras_meta.evaluate_episodes(read_label, dataset_of((x,)))


def test_labels_of_another_number_of_tasks_are_an_error():
    # Spread over all tasks, one task's would give a wrong number.
    x, y = classification_batch(np.ones((4, 5)))
    for model in (read_label, sinusoid_model()):
        if model is not read_label:
            (x, y), *_ = sinusoids().as_numpy_iterator()
        with pytest.raises(ValueError, match="tasks.*Received"):
            keras_meta.evaluate_episodes(model, dataset_of((x, y[:1])))


def test_answers_that_do_not_fit_the_queries_are_an_error():
    dataset = sinusoids()
    for shape in ((1, 7, 1), (4, 1, 1), (1, 1, 1)):
        with pytest.raises(ValueError, match="predictions.*Received"):
            keras_meta.evaluate_episodes(
                lambda x, shape=shape: tf.zeros(shape), dataset.take(1)
            )


def test_an_unfit_episode_is_an_error_of_the_episode():
    model = sinusoid_model()
    (x, y), *_ = sinusoids().as_numpy_iterator()
    missing = {key: leaf for key, leaf in x.items() if key != "support_y"}
    with pytest.raises(ValueError, match=r"missing: \['support_y'\]"):
        keras_meta.evaluate_episodes(model, dataset_of((missing, y)))
    with pytest.raises(ValueError, match="same number of examples"):
        keras_meta.evaluate_episodes(model, dataset_of((x, y[:, :3])))


def test_labels_beyond_the_outputs_are_an_error():
    network = keras_meta.backbones.mlp((3,), hidden_units=(), outputs=2)
    model = keras_meta.MAML(
        network,
        inner_loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batch = classification_batch(np.ones((2, 4)))
    with pytest.raises(ValueError, match="labels from 0 to 2, and a network"):
        keras_meta.evaluate_episodes(model, dataset_of(batch))


def test_many_models_are_measured_without_a_warning_of_retracing(caplog):
    episodes = keras_meta.episodes.sinusoids(
        shots=2, queries=2, meta_batch_size=1, episodes=1
    )
    for _ in range(8):
        model = keras_meta.MatchingNetwork(
            keras_meta.backbones.mlp((1,), (4,)), regression=True
        )
        keras_meta.evaluate_episodes(model, episodes)
    assert "retracing" not in caplog.text
