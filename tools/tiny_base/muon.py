"""Muon, an optimiser for matrices."""

from __future__ import annotations

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose every update is made orthogonal, so that all directions of a matrix learn alike.

    Keller Jordan's Muon, scaled so that updates are as large as Adam's. torch.optim.Muon does the same in bfloat16, which
    is slow on a processor without bfloat16 arithmetic.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        (group,) = self.param_groups
        for matrix in group["params"]:
            mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
            mean.lerp_(matrix.grad, 1 - group["momentum"])
            update = orthogonalised(matrix.grad.lerp(mean, group["momentum"]))
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(update, alpha=-0.2 * group["lr"] * max(matrix.shape) ** 0.5)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with its singular values brought near 1 by five Newton-Schulz steps."""
    result = matrix / (matrix.norm() + 1e-7)
    tall = matrix.shape[0] > matrix.shape[1]
    result = result.T if tall else result
    for _ in range(5):
        square = result @ result.T
        result = 3.4445 * result + (-4.7750 * square + 2.0315 * square @ square) @ result
    return result.T if tall else result
