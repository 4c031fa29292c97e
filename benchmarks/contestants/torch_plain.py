"""Prototypical networks and Reptile in PyTorch, with its own optimizers."""

import copy

import torch
from torch.nn import functional

from contestants import torch_networks
from contestants.torch_loop import Loop
from contestants.torch_loop import mean_over_tasks


def make(case, folder, fused=False, compiled=False):
    network = torch_networks.make_network(case)
    if case["algorithm"] == "prototypical":
        return prototypical(case, network, compiled)
    return reptile(case, network, fused, compiled)


def prototypical(case, network, compiled):
    ways, shots = case["ways"], case["shots"]

    def loss_of(support_x, query_x, query_y):
        embeddings = network(torch.cat([support_x, query_x]))
        support = embeddings[: ways * shots]
        query = embeddings[ways * shots :]
        # The classes stand in order, as many examples each.
        prototypes = support.reshape(ways, shots, -1).mean(1)
        logits = -torch.cdist(query, prototypes).square()
        return functional.cross_entropy(logits, query_y)

    if compiled:
        loss_of = torch.compile(loss_of)

    def loss_and_gradients(batch):
        (task,) = torch_networks.tasks_of(batch)
        loss = loss_of(task["support_x"], task["query_x"], task["query_y"])
        parameters = list(network.parameters())
        return loss.detach(), torch.autograd.grad(loss, parameters)

    return Loop(case, network.parameters(), loss_and_gradients)


def reptile(case, network, fused, compiled):
    # One copy serves all tasks, and starts each from the same weights.
    adapting = copy.deepcopy(network)
    parameters = list(adapting.parameters())
    start = list(network.parameters())
    size, drawn = case["ways"] * case["shots"], case["inner_batch"]

    def loss_of(x, y):
        return functional.cross_entropy(adapting(x), y)

    if compiled:
        loss_of = torch.compile(loss_of)

    def learn(task):
        with torch.no_grad():
            for parameter, weight in zip(parameters, start):
                parameter.copy_(weight)
        optimizer = torch.optim.Adam(
            parameters,
            case["inner_learning_rate"],
            betas=(0.0, 0.999),
            fused=fused,
        )
        order = torch.randperm(size)
        for step in range(case["inner_steps"]):
            x, y = task["support_x"], task["support_y"]
            if drawn is not None:
                chosen = order[step * drawn : (step + 1) * drawn]
                x, y = x[chosen], y[chosen]
            # Keras adds its epsilon before the correction of the moments.
            epsilon = 1e-7 / (1 - 0.999 ** (step + 1)) ** 0.5
            optimizer.param_groups[0]["eps"] = epsilon
            optimizer.zero_grad()
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            moved = [old - new for old, new in zip(start, parameters)]
        return loss.detach(), moved

    def loss_and_gradients(batch):
        return mean_over_tasks(
            [learn(task) for task in torch_networks.tasks_of(batch)]
        )

    return Loop(case, start, loss_and_gradients)
