"""MAML in PyTorch with `higher`, as its guide has it."""

import higher
import torch

from contestants import torch_networks
from contestants.torch_loop import Loop
from contestants.torch_loop import mean_over_tasks


def make(case, folder):
    network = torch_networks.make_network(case)
    loss_of = torch_networks.loss_of(case)
    inner = torch.optim.SGD(network.parameters(), case["inner_learning_rate"])
    second_order = not case["first_order"]

    def learn(task):
        with higher.innerloop_ctx(
            network,
            inner,
            copy_initial_weights=False,
            track_higher_grads=second_order,
        ) as (adapting, optimizer):
            for _ in range(case["inner_steps"]):
                predictions = adapting(task["support_x"])
                optimizer.step(loss_of(predictions, task["support_y"]))
            loss = loss_of(adapting(task["query_x"]), task["query_y"])
            # Without the second order, those of the adapted weights.
            start = adapting.parameters(time=0 if second_order else -1)
            gradients = torch.autograd.grad(loss, list(start))
        return loss.detach(), gradients

    def loss_and_gradients(batch):
        return mean_over_tasks(
            [learn(task) for task in torch_networks.tasks_of(batch)]
        )

    return Loop(case, network.parameters(), loss_and_gradients)
