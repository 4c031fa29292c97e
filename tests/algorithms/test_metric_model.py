import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta.algorithms import metric_model
from keras_meta.algorithms.adapted_metric_model import AdaptedMetricModel
from tests.algorithms import contract


@keras.saving.register_keras_serializable(package="test")
class NearestExample(metric_model.MetricModel):
    """The smallest metric learner: a class is its nearest example."""

    def __init__(self, network, distance="euclidean", ways=None, **kwargs):
        super().__init__(network, ways, **kwargs)
        self.distance = keras_meta.distances.get(distance)

    def score(self, support, labels, weight, queries, training):
        scores = -self.distance(queries, support)[..., None]
        of_class = (labels * weight[..., None])[:, None] > 0
        return tf.reduce_max(tf.where(of_class, scores, -1e6), axis=2)

    def get_config(self):
        distance = keras_meta.distances.serialize(self.distance)
        return {**super().get_config(), "distance": distance}

    @classmethod
    def from_config(cls, config):
        distance = keras_meta.distances.deserialize(config["distance"])
        return super().from_config({**config, "distance": distance})


def make_model(**arguments):
    network = keras_meta.backbones.mlp((8,), (16,), outputs=8)
    model = NearestExample(network, **arguments)
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


@pytest.fixture
def batch():
    return next(iter(contract.blob_episodes()))


def adapted_to(model, x, task=0, **arguments):
    return model.adapt(x["support_x"][task], x["support_y"][task], **arguments)


def shifted(queries, references):
    """A distance that Keras could not find by its name."""
    return 1.0 + keras_meta.distances.euclidean(queries, references)


DISTANCES = {
    "euclidean": lambda: "euclidean",
    "learned": lambda: keras_meta.distances.LearnedDistance(8),
    "function": lambda: shifted,
}


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize(
    "algorithm", [NearestExample, keras_meta.PrototypicalNetwork]
)
def test_adapted_model_gives_the_logits_of_the_model(algorithm, kind, batch):
    network = keras_meta.backbones.mlp((8,), (16,), outputs=8)
    model = algorithm(network, distance=DISTANCES[kind]())
    for weight in model.trainable_weights:
        weight.assign(weight + 0.1)
    adapted = adapted_to(model, batch[0], task=1)
    assert type(adapted) is AdaptedMetricModel
    answer = adapted.predict(batch[0]["query_x"][1], verbose=0)
    np.testing.assert_allclose(answer, model(batch[0])[1], rtol=1e-5)


def test_adapted_model_stays_as_it_was_when_the_model_is_trained(batch):
    model = make_model()
    adapted = adapted_to(model, batch[0])
    queries = batch[0]["query_x"][0]
    before = adapted.predict(queries, verbose=0)
    model_before = model(batch[0])[0]
    model.fit(contract.blob_episodes(), steps_per_epoch=5, verbose=0)
    assert not np.allclose(model(batch[0])[0], model_before)
    np.testing.assert_array_equal(adapted.predict(queries, verbose=0), before)


def test_adapted_model_ignores_padded_support(batch):
    model = make_model()
    x = batch[0]
    adapted = model.adapt(
        tf.concat([x["support_x"][0], x["query_x"][0]], axis=0),
        tf.concat([x["support_y"][0], batch[1][0]], axis=0),
        [1.0] * 6 + [0.0] * 12,
    )
    np.testing.assert_allclose(adapted(x["query_x"][0]), model(x)[0], rtol=1e-5)


def test_adapted_model_is_an_ordinary_keras_model(batch, tmp_path):
    adapted = adapted_to(make_model(), batch[0])
    queries = batch[0]["query_x"][0]
    assert adapted.predict(queries[:1], verbose=0).shape == (1, 3)
    assert adapted(keras.Input((8,))).shape == (None, 3)
    names = {variable.name for variable in adapted.non_trainable_variables}
    assert names == {"support", "labels", "support_weight"}
    adapted.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(
        exported.serve(queries), adapted(queries), rtol=1e-5
    )


def test_adapted_model_refuses_a_support_set_that_lacks_a_class(batch):
    model = make_model(ways=3)
    with pytest.raises(ValueError, match=r"lacks the classes \[2\]"):
        model.adapt(batch[0]["support_x"][0], [0, 0, 1, 1, 1, 1])


def test_logits_have_full_precision_in_mixed_precision(batch):
    x = {**batch[0], "support_y": tf.minimum(batch[0]["support_y"], 1)}
    x["support_y"] = tf.tensor_scatter_nd_update(x["support_y"], [[0, 5]], [2])
    network = keras_meta.backbones.mlp((8,), (16,), outputs=8)
    model = NearestExample(network, dtype="mixed_float16")
    logits = model(x)
    assert logits.dtype == "float32"
    assert model.compute_output_spec(x).dtype == "float32"
    np.testing.assert_array_equal(logits[1:, :, 2], -1e9)


class TestNearestExample(contract.AlgorithmContract):
    def make_model(self):
        return make_model(ways=3)
