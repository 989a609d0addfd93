"""Write `peers_learned.npz`: DMBP and LPR by plain double backpropagation in torch.

    python tests/reference/make_learned.py

in an environment with the project, its `test` group and torch 2.13.0 (CPU). There is no public code
of either system; this is the papers' definition, written without jaxattr's shortcuts: the masked or
learned backward pass of the network itself, taken with `create_graph=True`, and its derivative.
Networks (BatchNorm folded), images and classes are those of `make_peers.py`; float64; maps channels
first.

`dmbp.{net}.{image,literal}.*`: 25 steps of torch's RMSprop (learning rate 0.01), counting image
terms only or bias terms too: `losses` `(3, 25)` before each step, `positive` and `negative`.

`lpr.{net}.{baseline,gate,free}.*`: 10 steps of Adam (0.2) with the logit loss: multipliers against
an all-zero input, the gate, or 1; `losses` `(3, 10)` and `attribution`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch_nets import HERE, fold, load


class Backward(torch.autograd.Function):
    """A ReLU whose backward pass is a function of the gradient and a parameter."""

    @staticmethod
    def forward(ctx, z: Tensor, parameter: Tensor, factor: Tensor, rule: Callable) -> Tensor:
        ctx.save_for_backward(parameter, factor)
        ctx.rule = rule
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx, g: Tensor):
        parameter, factor = ctx.saved_tensors
        return ctx.rule(g, parameter, factor), None, None, None


class Ruled(nn.Module):
    """A ReLU that records what enters it, and takes its backward rule from outside."""

    parameter: Tensor | None = None
    factor: Tensor
    rule: Callable

    def forward(self, z: Tensor) -> Tensor:
        self.seen = z.detach()
        if self.parameter is None:
            return z.clamp(min=0)
        return Backward.apply(z, self.parameter, self.factor, self.rule)


def ruled(model: nn.Module) -> list[Ruled]:
    """Replace every ReLU, in place, and return the new ones."""
    for parent in list(model.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.ReLU):
                setattr(parent, name, Ruled())
    return [part for part in model.modules() if isinstance(part, Ruled)]


def set_rules(parts: Sequence[Ruled], parameters, factors, rule) -> None:
    for part, parameter, factor in zip(parts, parameters, factors, strict=True):
        part.parameter, part.factor, part.rule = parameter, factor, rule


def picked(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(1, target[:, None])[:, 0]


def prepared(name: str):
    """Return the network with its ReLUs open to rules, images, classes and those ReLUs."""
    model, x, target = load(name)
    fold(model)
    parts = ruled(model)
    model(x)
    return model, x, target, parts


def mask_rule(g: Tensor, mask: Tensor, gate: Tensor) -> Tensor:
    return g * gate * mask


def tanh_rule(g: Tensor, theta: Tensor, multiplier: Tensor) -> Tensor:
    return torch.tanh(theta * multiplier * g)


def dmbp(name: str, *, bias: bool, steps: int = 25) -> dict[str, Tensor]:
    model, x, target, parts = prepared(name)
    gates = [(p.seen > 0).to(x.dtype) for p in parts]
    biases = [b for key, b in model.named_parameters() if key.endswith("bias")] if bias else []
    for b in biases:
        b.requires_grad_(True)
    theta = [torch.zeros_like(g, requires_grad=True) for g in gates]
    optimizer = torch.optim.RMSprop(theta, lr=0.01)
    y = picked(model(x), target).detach()

    def part(masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the part of the score that the masks keep, and its gradient to the image.

        A bias is shared by the images, and its gradient sums over them: one image at a time.
        """
        totals, maps = [], []
        for i in range(len(x)):
            set_rules(
                parts, [m[i : i + 1] for m in masks], [g[i : i + 1] for g in gates], mask_rule
            )
            image = x[i : i + 1].clone().requires_grad_(True)
            score = picked(model(image), target[i : i + 1]).sum()
            g, *terms = torch.autograd.grad(score, [image, *biases], create_graph=True)
            total = (g * image).sum()
            totals.append(total + sum((t * b).sum() for t, b in zip(terms, biases, strict=True)))
            maps.append((g * image)[0])
        return torch.stack(totals), torch.stack(maps)

    losses = []
    for _ in range(steps):
        s = [t.sigmoid() for t in theta]
        plus, minus = part(s)[0], part([1 - m for m in s])[0]
        loss = minus - plus + (y - plus - minus).abs()
        losses.append(loss.detach())
        optimizer.zero_grad()
        grads = torch.autograd.grad(loss.sum(), theta)
        for t, g in zip(theta, grads, strict=True):
            t.grad = g
        optimizer.step()
    s = [t.sigmoid().detach() for t in theta]
    return {
        "losses": torch.stack(losses, 1),
        "positive": part(s)[1].detach(),
        "negative": part([1 - m for m in s])[1].detach(),
    }


def lpr(name: str, kind: str, steps: int = 10) -> dict[str, Tensor]:
    model, x, target, parts = prepared(name)
    at = [p.seen for p in parts]
    model(torch.zeros_like(x))
    origin = [p.seen for p in parts]

    def multiplier(z: Tensor, z0: Tensor) -> Tensor:
        gate = (z > 0).to(z.dtype)
        if kind != "baseline":
            return gate if kind == "gate" else torch.ones_like(z)
        near = (z - z0).abs() < 1e-6
        secant = (z.clamp(min=0) - z0.clamp(min=0)) / torch.where(near, 1, z - z0)
        return torch.where(near, gate, secant)

    factors = [multiplier(z, z0) for z, z0 in zip(at, origin, strict=True)]
    theta = [torch.ones_like(z, requires_grad=True) for z in at]
    optimizer = torch.optim.Adam(theta, lr=0.2)

    def attribute() -> Tensor:
        set_rules(parts, theta, factors, tanh_rule)
        image = x.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(picked(model(image), target).sum(), image, create_graph=True)
        set_rules(parts, [None] * len(parts), factors, tanh_rule)
        return g * image

    losses = []
    for _ in range(steps):
        a = attribute()
        low, high = a.amin((1, 2, 3), keepdim=True), a.amax((1, 2, 3), keepdim=True)
        a = (a - low) / (high - low)
        mp, mn = 1 - torch.sigmoid(10 * (a - 0.75)), torch.sigmoid(10 * (a - 0.25))
        size = (1 - mp).abs().mean((1, 2, 3)) + (1 - mn).abs().mean((1, 2, 3))
        loss = picked(model(x * mp), target) - picked(model(x * mn), target) + 0.1 * size
        losses.append(loss.detach())
        for t, g in zip(theta, torch.autograd.grad(loss.sum(), theta), strict=True):
            t.grad = g
        optimizer.step()
    return {"losses": torch.stack(losses, 1), "attribution": attribute().detach()}


def main() -> None:
    arrays = {}
    for name in ("vgg", "resnet"):
        for kind, bias in {"image": False, "literal": True}.items():
            found = dmbp(name, bias=bias)
            arrays |= {f"dmbp.{name}.{kind}.{key}": value for key, value in found.items()}
        for kind in ("baseline", "gate", "free"):
            found = lpr(name, kind)
            arrays |= {f"lpr.{name}.{kind}.{key}": value for key, value in found.items()}
    np.savez_compressed(HERE / "peers_learned.npz", **{k: v.numpy() for k, v in arrays.items()})


if __name__ == "__main__":
    main()
