"""The training loop of the contestants in PyTorch."""

import torch

from contestants import clock
from contestants import torch_networks


class Loop:
    """Takes outer steps with Adam.

    Args:
        case: Dictionary, the case.
        parameters: List of tensors, the weights.
        loss_and_gradients: Function of a meta-batch.
    """

    granularity = 1

    def __init__(self, case, parameters, loss_and_gradients):
        self.parameters = list(parameters)
        self.optimizer = torch.optim.Adam(self.parameters, 0.001, eps=1e-7)
        self.batches = torch_networks.batches(case)
        self.loss_and_gradients = loss_and_gradients
        self.count = 0

    def step(self):
        batch = self.batches[self.count % len(self.batches)]
        self.count += 1
        loss, gradients = self.loss_and_gradients(batch)
        for parameter, gradient in zip(self.parameters, gradients):
            parameter.grad = gradient
        self.optimizer.step()
        return loss

    def check(self):
        loss = self.step()
        # The first momentum of Adam is a tenth of the gradient.
        state = self.optimizer.state
        gradients = [
            torch_networks.turned_back(state[parameter]["exp_avg"]) / 0.1
            for parameter in self.parameters
        ]
        return float(loss), gradients

    def run(self, steps, blocks):
        return clock.durations(self.step, steps, blocks)


def mean_over_tasks(results):
    """Returns the means of what each task gave: its loss and gradients."""
    losses, gradients = zip(*results)
    means = [torch.stack(parts).mean(0) for parts in zip(*gradients)]
    return torch.stack(losses).mean(), means
