# SPDX-License-Identifier: MIT
"""Muon for hidden matrices and Adam for the rest, on flat shared buffers."""
import torch

from model import Linear

MOMENTUM = 0.95
BETAS = (0.9, 0.98)


@torch.no_grad()
def orthogonalise(u, rounds=5):
    """Newton-Schulz iteration; u [count, rows, columns] with rows <= columns"""
    x = (u / (u.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(Linear.products)
    for _ in range(rounds):
        a = x @ x.transpose(1, 2)
        x = torch.baddbmm(3.4445 * x, -4.7750 * a + 2.0315 * (a @ a), x)
    return x.float()


@torch.no_grad()
def muon_step(weight, grad, momentum, rate, decay):
    """All [rows, columns], changed in place."""
    momentum.mul_(MOMENTUM).add_(grad)
    u = grad.add(momentum, alpha=MOMENTUM)
    tall = u.shape[0] > u.shape[1]
    u = orthogonalise((u.T if tall else u)[None])[0]
    weight.mul_(1 - rate * decay)
    scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
    weight.add_(u.T if tall else u, alpha=-rate * scale)


@torch.no_grad()
def adam_step(weight, grad, first, second, rate, step):
    """step counts from 1"""
    first.lerp_(grad, 1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
    size = (second / (1 - BETAS[1] ** step)).sqrt_().add_(1e-8)
    weight.addcdiv_(first, size, value=-rate / (1 - BETAS[0] ** step))


def is_hidden_matrix(name, weight):
    plain = weight.ndim == 2
    return plain and not any(t in name for t in ("embedding", "position", "patch", "reading"))
