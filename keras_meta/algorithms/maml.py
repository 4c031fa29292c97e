import keras

from keras_meta.algorithms.unrolled_model import UnrolledModel


@keras.saving.register_keras_serializable(package="keras_meta")
class MAML(UnrolledModel):
    """Model-agnostic meta-learning: an initialization that adapts fast.

    The inner loop takes a few gradient steps on the support set of a task;
    the outer loop moves the initialization of the network so that the
    adapted network answers the queries well. The outer gradient passes
    through the inner steps (second order, exact), or takes their gradients
    for constants (`first_order=True`).

    Beside the loss and the compiled metrics, all after adaptation, `fit()`
    logs `support_loss_before` and `support_loss_after` adaptation, and
    `loss_before` and `<metric>_before`, the queries answered without
    adapting. In training, where tasks run one by one, those that cost a pass
    of their own are measured on the first task of each meta-batch; in
    `evaluate()` on all.

    Args:
        network: A built `keras.Model`, one example in, one prediction out,
            for classification with one output per way.
        inner_steps: Integer, the number of inner steps in training. Defaults
            to `1`.
        inner_learning_rate: Float, the rate of the inner steps. `None` means
            `0.01`, unless an `update_rule` is given.
        inner_loss: The loss of the inner steps: a `keras.losses.Loss`, its
            name, or a function `(y_true, y_pred)` that returns a value per
            example. `None` means the loss given to `compile()`.
        evaluation_steps: Integer, the number of inner steps in `evaluate()`,
            `predict()` and `adapt()`. `None` means `inner_steps`.
        update_rule: A `keras_meta.update_rules.UpdateRule`, how an inner
            step is taken. `None` means gradient descent.
        adapts: Which weights adapt: `"all"` (the default); `"head"`, those
            of the last layer that has any (ANIL); `"body"`, those of all
            other layers (BOIL); or a function that takes a layer and returns
            whether it adapts. All others are learned by the outer loop
            alone.
        first_order: Boolean. Whether to leave out the second derivatives
            (FOMAML), which is cheaper. Defaults to `False`.
        first_order_iterations: Integer, for how many training steps they are
            left out at first. Defaults to `0`.
        truncation: Integer from 1 to `inner_steps`, through how many of the
            last inner steps the outer gradient passes; for those before it
            is of first order. `None` (the default) means all.
        recompute: Boolean. Whether the outer gradient computes each inner
            step again rather than remembers it: less memory, more time, the
            same result. Defaults to `False`.
        multi_step_loss_iterations: Integer, for how many training steps the
            loss after every inner step counts, at first all alike and in the
            end the last one alone. Defaults to `0`.
        normalization_statistics: String, the statistics that batch
            normalization uses. Within an episode moving statistics do not
            move, so that this must be chosen:

            - `"batch"` (the default): those of the batch at hand, support or
              query, in training and in prediction. Transductive, as in the
              paper's code: the queries of a task are seen together, and a
              single query cannot be answered.
            - `"support"`: those of the support set, for the queries too.
              Each query is answered on its own.
            - `"per_step"`: those of the batch at hand in training, and in
              prediction their moving averages over the tasks of training,
              separate for each inner step (MAML++). Each query is answered
              on its own, with no more steps than were trained.
            - `"frozen"`: the moving statistics that the network came with,
              for pretrained networks.
        normalization_scales: String. `"shared"` (the default): scales and
            offsets of batch normalization are weights as others.
            `"per_step"`: there is one set for each inner step (MAML++),
            learned by the outer loop alone.
        task_mapping: `"vectorized"`, `"sequential"`, or `"auto"` (the
            default): how the tasks of a meta-batch are run. Changes speed
            and memory, not results.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError, TypeError: Where the network is not built, has nothing to
            adapt, or another argument is not as described.

    Example:

    ```python
    episodes = keras_meta.episodes.sinusoids(
        shots=10, queries=10, meta_batch_size=25
    )
    model = keras_meta.MAML(
        keras_meta.backbones.mlp(hidden_units=(40, 40)),
        inner_steps=1,
        inner_learning_rate=0.01,
    )
    model.compile(optimizer="adam", loss="mse")
    model.fit(episodes, steps_per_epoch=100, epochs=2)
    ```

    Reference:
        - [Finn et al., 2017](https://arxiv.org/abs/1703.03400)
        - [Raghu et al., 2020](https://arxiv.org/abs/1909.09157) (ANIL)
        - [Oh et al., 2021](https://arxiv.org/abs/2008.08882) (BOIL)
        - [Antoniou et al., 2019](https://arxiv.org/abs/1810.09502) (MAML++)
        - [Shaban et al., 2019](https://arxiv.org/abs/1810.10667) (truncation)
    """

    def __init__(
        self,
        network,
        inner_steps=1,
        inner_learning_rate=None,
        inner_loss=None,
        evaluation_steps=None,
        update_rule=None,
        adapts="all",
        first_order=False,
        first_order_iterations=0,
        truncation=None,
        recompute=False,
        multi_step_loss_iterations=0,
        normalization_statistics="batch",
        normalization_scales="shared",
        task_mapping="auto",
        **kwargs,
    ):
        super().__init__(
            network,
            inner_steps=inner_steps,
            inner_learning_rate=inner_learning_rate,
            inner_loss=inner_loss,
            evaluation_steps=evaluation_steps,
            update_rule=update_rule,
            adapts=adapts,
            first_order=first_order,
            first_order_iterations=first_order_iterations,
            truncation=truncation,
            recompute=recompute,
            multi_step_loss_iterations=multi_step_loss_iterations,
            normalization_statistics=normalization_statistics,
            normalization_scales=normalization_scales,
            task_mapping=task_mapping,
            **kwargs,
        )
