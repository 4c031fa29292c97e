"""The networks, data and weights of the contestants in PyTorch."""

import torch
from torch import nn
from torch.nn import functional

from contestants import cases

# That of Keras.
EPSILON = 0.001


def make_network(case):
    """Returns a network with the weights of the case."""
    width, outputs = case["width"], cases.outputs(case)
    layers = []
    if cases.is_image(case):
        moves = case["algorithm"] == "prototypical"
        channels = 1
        for _ in range(4):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
            layers.append(
                nn.BatchNorm2d(width, EPSILON, 0.01, track_running_stats=moves)
            )
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        layers.append(nn.Flatten())
        if outputs:
            layers.append(nn.Linear(width, outputs))
    else:
        layers += [nn.Linear(1, width), nn.ReLU()]
        layers += [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)]
    dtype = getattr(torch, case.get("dtype", "float32"))
    network = nn.Sequential(*layers).to(dtype)
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), cases.weights(case)):
            parameter.copy_(turned(torch.from_numpy(value)))
    return network


def turned(weight):
    """Returns a weight of Keras in the layout of PyTorch."""
    if weight.ndim == 4:
        return weight.permute(3, 2, 0, 1)
    return weight.T if weight.ndim == 2 else weight


def turned_back(weight):
    """Returns a weight of PyTorch in the layout of Keras, as an array."""
    if weight.ndim == 4:
        weight = weight.permute(2, 3, 1, 0)
    elif weight.ndim == 2:
        weight = weight.T
    return weight.detach().numpy()


def batches(case):
    """Returns the meta-batches, a list of dictionaries of tensors."""
    data = {}
    for name, values in cases.data(case).items():
        tensor = torch.from_numpy(values)
        if name.endswith("y") and cases.is_image(case):
            tensor = tensor.long()
        if name.endswith("x") and cases.is_image(case):
            # Channels first: there is one.
            tensor = tensor.movedim(-1, -3).contiguous()
        data[name] = tensor
    return [
        {name: tensor[number] for name, tensor in data.items()}
        for number in range(cases.BATCHES)
    ]


def tasks_of(batch):
    """Yields the tasks of a meta-batch."""
    for index in range(len(batch["query_x"])):
        yield {name: tensor[index] for name, tensor in batch.items()}


def loss_of(case):
    if cases.is_image(case):
        return functional.cross_entropy
    return functional.mse_loss
