import builtins

import numpy as np
import pytest
from matplotlib.figure import Figure

import keras_meta


def sinusoid_model(steps=2):
    return keras_meta.MAML(
        keras_meta.backbones.mlp(), inner_loss="mse", inner_steps=steps
    )


def image_episodes():
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (60, 8, 8, 1)).astype("uint8")
    return keras_meta.episodes.from_arrays(
        x, np.repeat(np.arange(6), 10), 3, 2, 5, meta_batch_size=2, episodes=2
    )


def test_plot_regression_draws_what_the_model_predicts():
    model = sinusoid_model()
    episodes = keras_meta.episodes.sinusoids(queries=50, episodes=3)
    figure = keras_meta.visualization.plot_regression(
        model, episodes, tasks=2, steps=(0, 2)
    )
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 2
    x, y = next(iter(episodes))
    for task, axis in enumerate(figure.axes):
        lines = {line.get_label(): line.get_xydata() for line in axis.lines}
        assert set(lines) == {
            "truth",
            "before adapting",
            "after 2 steps",
            "support",
        }
        order = np.argsort(x["query_x"][task].numpy().ravel())
        expected = {
            "truth": y[task],
            "before adapting": model.network(x["query_x"][task]),
            "after 2 steps": model(x)[task],
        }
        for name, values in expected.items():
            np.testing.assert_allclose(
                lines[name][:, 1], np.ravel(values)[order], atol=1e-5
            )


def test_plot_regression_draws_a_model_without_inner_steps():
    model = keras_meta.MatchingNetwork(
        keras_meta.backbones.mlp(), regression=True
    )
    episodes = keras_meta.episodes.sinusoids(queries=50, episodes=1)
    figure = keras_meta.visualization.plot_regression(
        model, episodes, steps=(0,)
    )
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.lines}
    assert set(lines) == {"truth", "answer", "support"}
    assert lines["answer"].get_linestyle() == "-"
    x, _ = next(iter(episodes))
    order = np.argsort(x["query_x"][0].numpy().ravel())
    np.testing.assert_allclose(
        lines["answer"].get_xydata()[:, 1],
        np.ravel(model(x))[order],
        atol=1e-5,
    )


def test_plot_regression_refuses_steps_that_are_not_taken():
    with pytest.raises(ValueError, match="must not exceed.*takes 2"):
        keras_meta.visualization.plot_regression(
            sinusoid_model(),
            keras_meta.episodes.sinusoids(episodes=1),
            steps=(0, 10),
        )


def test_plot_episode_marks_right_and_wrong(tmp_path):
    def always_the_first(x):
        tasks, queries = x["query_x"].shape[:2]
        return np.tile([1.0, 0.0, 0.0], (tasks, queries, 1))

    figure = keras_meta.visualization.plot_episode(
        always_the_first, image_episodes(), queries=4
    )
    captions = [axis.get_xlabel() for axis in figure.axes]
    assert captions.count("took for 0") == 8
    images = [axis for axis in figure.axes if axis.images]
    assert len(images) == 3 * (2 + 4)
    assert "5 of 15" in figure.get_suptitle()
    figure.savefig(tmp_path / "episode.png")
    assert (tmp_path / "episode.png").stat().st_size > 1000


def test_draws_into_a_given_figure():
    whole = Figure()
    left, right = whole.subfigures(1, 2)
    drawn = keras_meta.visualization.plot_regression(
        sinusoid_model(),
        keras_meta.episodes.sinusoids(episodes=1),
        figure=left,
    )
    assert drawn is left
    assert len(whole.axes) == 1 and not right.axes


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def no_matplotlib(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    model = sinusoid_model()
    episodes = keras_meta.episodes.sinusoids(episodes=1)
    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(ImportError, match=r"keras-meta\[visualization\]"):
        keras_meta.visualization.plot_regression(model, episodes)


def test_plot_regression_draws_the_band_of_a_neural_process():
    model = keras_meta.ConditionalNeuralProcess(
        keras_meta.backbones.mlp((1,), (8,), outputs=None), 1, regression=True
    )
    episodes = keras_meta.episodes.sinusoids(queries=20, episodes=1)
    figure = keras_meta.visualization.plot_regression(
        model, episodes, steps=(0,)
    )
    x, _ = next(iter(episodes))
    mean, deviation = np.split(model(x)[0].numpy(), 2, axis=-1)
    order = np.argsort(x["query_x"][0].numpy().ravel())
    (axis,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axis.lines}
    np.testing.assert_allclose(
        lines["answer"][:, 1], mean.ravel()[order], atol=1e-6
    )
    (band,) = axis.collections
    assert band.get_label() == "95 % band"
    edges = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(
        [edges.min(), edges.max()],
        [
            np.min(mean - 1.96 * deviation),
            np.max(mean + 1.96 * deviation),
        ],
        rtol=1e-5,
    )


def test_plot_regression_says_that_fine_tuning_took_all_its_steps():
    model = keras_meta.FineTuning(
        keras_meta.backbones.mlp(), inner_loss="mse", inner_steps=5
    )
    episodes = keras_meta.episodes.sinusoids(queries=20, episodes=1)
    figure = keras_meta.visualization.plot_regression(model, episodes)
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert "before adapting" in labels and "after adapting" in labels
