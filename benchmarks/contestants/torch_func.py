"""MAML in PyTorch with `torch.func`: task by task, or all under `vmap`."""

import torch
from torch import func
from torch.nn import functional

from contestants import cases
from contestants import clock
from contestants import torch_networks
from contestants.torch_loop import Loop
from contestants.torch_loop import mean_over_tasks


def make(case, folder, vectorized=False, compiled=False):
    network = torch_networks.make_network(case)
    weights = dict(network.named_parameters())
    loss_function = torch_networks.loss_of(case)

    def loss_of(weights, x, y):
        return loss_function(func.functional_call(network, weights, (x,)), y)

    def adapt(weights, task):
        for _ in range(case["inner_steps"]):
            gradients = func.grad(loss_of)(
                weights, task["support_x"], task["support_y"]
            )
            weights = {
                name: weight - case["inner_learning_rate"] * gradients[name]
                for name, weight in weights.items()
            }
        return weights

    def outer_gradient(weights, task):
        query = task["query_x"], task["query_y"]
        if case["first_order"]:
            # That at the adapted weights is all there is.
            found = func.grad_and_value(loss_of)(adapt(weights, task), *query)
        else:
            found = func.grad_and_value(
                lambda weights: loss_of(adapt(weights, task), *query)
            )(weights)
        gradients, loss = found
        return loss, list(gradients.values())

    if case["algorithm"] == "answer":
        return Answer(case, network, adapt, compiled)

    def of_all_tasks(weights, batch):
        found = func.vmap(outer_gradient, in_dims=(None, 0))(weights, batch)
        loss, gradients = found
        return loss.mean(), [gradient.mean(0) for gradient in gradients]

    function = of_all_tasks if vectorized else outer_gradient
    if compiled:
        function = torch.compile(function)

    def loss_and_gradients(batch):
        current = {name: weight.detach() for name, weight in weights.items()}
        if vectorized:
            return function(current, batch)
        return mean_over_tasks(
            [function(current, task) for task in torch_networks.tasks_of(batch)]
        )

    return Loop(case, weights.values(), loss_and_gradients)


class Answer:
    """Adapts to one task and answers one query."""

    granularity = 1

    def __init__(self, case, network, adapt, compiled):
        weights = {
            name: weight.detach() for name, weight in network.named_parameters()
        }

        def answer(task):
            adapted = adapt(weights, task)
            if not cases.is_image(case):
                return func.functional_call(
                    network, adapted, (task["query_x"],)
                )
            # The query is normalized with the statistics of the support set,
            # which are followed through the layers beside it.
            layers = dict(network.named_children())
            support, query = task["support_x"], task["query_x"]
            for number, layer in layers.items():
                prefix = f"{number}."
                given = {
                    name.removeprefix(prefix): weight
                    for name, weight in adapted.items()
                    if name.startswith(prefix)
                }
                if isinstance(layer, torch.nn.BatchNorm2d):
                    axes = (0, 2, 3)
                    query = functional.batch_norm(
                        query,
                        support.mean(axes),
                        support.var(axes, correction=0),
                        given["weight"],
                        given["bias"],
                        eps=layer.eps,
                    )
                else:
                    query = func.functional_call(layer, given, (query,))
                support = func.functional_call(layer, given, (support,))
            return query

        self.answer = torch.compile(answer) if compiled else answer
        self.tasks = [
            next(torch_networks.tasks_of(batch))
            for batch in torch_networks.batches(case)
        ]
        self.count = 0

    def step(self):
        self.count += 1
        return self.answer(self.tasks[self.count % len(self.tasks)])

    def check(self):
        return 0.0, [self.answer(self.tasks[0]).detach().numpy()]

    def run(self, steps, blocks):
        return clock.durations(self.step, steps, blocks)
