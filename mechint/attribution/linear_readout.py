"""The readout held at one residual: a direction whose product with what was written there is its part of logit_diff.

The final norm divides the stream by one number, its scale. With the scale held, the norm is a linear map (LayerNorm's
centring included) and a bias. A readout knows its norm as a function only, so weight and centring are found by asking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import ModelValidationError
from mechint.engine.answers import AnswerIds
from mechint.models.readout import Readout

_PROBE = 1e3  # so large that a norm's epsilon does not count
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class LinearReadout:
    """The readout of logit_diff at one residual, with everything that is not linear held as it is there.

    `logit_diff = direction @ resid + norm_bias + unembed_bias + nonlinear`. Soft caps and sets of answers enter by
    their gradient, `nonlinear` is what that leaves out: nothing where the readout `is_linear`. `scale` is what the
    norm divides by. `direction` is float64.
    """

    logit_diff: float
    direction: Float[Tensor, " d_model"]
    scale: float
    norm_bias: float
    unembed_bias: float
    is_linear: bool

    @classmethod
    def of(cls, readout: Readout, ids: AnswerIds, resid: Float[Tensor, " d_model"]) -> LinearReadout:
        """Hold a readout at a residual that is not normed yet.

        Raises UsageError where yes or no is not named, ModelValidationError if the norm is no LayerNorm or RMSNorm.
        """
        resid = resid.detach().to(readout.weight.device, torch.float32)
        norm = _Norm.of(readout, len(resid))
        normed = readout.norm(resid[None])[0]
        scale = norm.scale(resid, normed)
        gradient, unembed_bias, logit_diff = _after_norm(readout, ids, normed)
        return cls(
            logit_diff,
            norm.transposed(gradient) / scale,
            scale,
            float(gradient @ norm.bias),
            unembed_bias,
            readout.soft_cap is None and len(ids.yes) == len(ids.no) == 1,
        )

    def contribution(self, written: Float[Tensor, " d_model"]) -> float:
        """Return the direct contribution to logit_diff of a vector that was written into the stream."""
        return float(self.direction @ written.to(self.direction))

    def nonlinear(self, resid: Float[Tensor, " d_model"]) -> float:
        """Return the part of logit_diff that is not linear, given the residual that the readout is held at."""
        return self.logit_diff - self.contribution(resid) - self.norm_bias - self.unembed_bias


@dataclass(frozen=True, eq=False)
class _Norm:
    """A norm as `weight * centred(x) / scale(x) + bias`, in float64."""

    weight: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    is_centred: bool

    @classmethod
    def of(cls, readout: Readout, d_model: int) -> _Norm:
        """Return a readout's norm, worked out from how it norms zeros, a constant, and alternating signs."""
        device = readout.weight.device
        signs = 1 - 2 * (torch.arange(d_model, device=device) % 2).float()
        probes = torch.stack([torch.zeros_like(signs), torch.ones_like(signs), signs]) * _PROBE
        bias, constant, alternating = readout.norm(probes).detach().double()
        is_centred = bool((constant - bias).abs().max() < _TOLERANCE * (alternating - bias).abs().max())
        centred_probe = probes[2].double() - probes[2].double().mean() * is_centred
        return cls((alternating - bias) * _PROBE / centred_probe, bias, is_centred)

    def linear(self, resid: Tensor) -> Float[Tensor, " d_model"]:
        """Return the linear part of the norm: without its bias and its division."""
        return self.weight * (resid.double() - resid.double().mean() * self.is_centred)

    def transposed(self, gradient: Tensor) -> Float[Tensor, " d_model"]:
        """Return the direction whose product with x is that of `gradient` with `linear(x)`."""
        weighted = self.weight * gradient
        return weighted - weighted.mean() * self.is_centred

    def scale(self, resid: Tensor, normed: Tensor) -> float:
        """Return the norm's divisor of a residual. Raises ModelValidationError if the norm did anything else to it."""
        linear, without_bias = self.linear(resid), normed.double() - self.bias
        inverse = (without_bias @ linear) / (linear @ linear)
        if not (without_bias - inverse * linear).norm() <= _TOLERANCE * without_bias.norm():
            raise ModelValidationError(
                given="a final norm that does more than centre, divide by one number, weight and add a bias",
                allowed="LayerNorm, RMSNorm, or none",
                advice="use effects (ablation, patching) instead of direct attribution for this architecture",
            )
        return float(1 / inverse)


def _after_norm(readout: Readout, ids: AnswerIds, normed: Tensor) -> tuple[Tensor, float, float]:
    """Return the gradient of logit_diff by the normed stream, the unembedding bias' part to first order, and itself."""
    with torch.enable_grad():
        stream, strength = normed.detach().requires_grad_(), torch.ones((), device=normed.device, requires_grad=True)
        bias = torch.zeros(len(readout.weight), device=normed.device) if readout.bias is None else readout.bias.float()
        rest = replace(readout, norm=_unchanged, bias=bias * strength)
        logit_diff = rest.logit_diff(stream[None], ids.yes, ids.no, ids.reduce)[0]
        gradient, by_strength = torch.autograd.grad(logit_diff, [stream, strength])
    return gradient.double(), float(by_strength), float(logit_diff.detach())


def _unchanged(resid: Tensor) -> Tensor:
    return resid
