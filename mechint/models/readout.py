"""The float32 readout: final norm, unembedding and log-sum-exp, whatever the model's dtype.

In bfloat16 a probability near one moves in steps of 0.4% and a logit of 16 to 32 in steps of 0.125, so nothing that is
reported is computed there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.base.errors import NumericalError, UsageError

# Rows of the unembedding converted to float32 at a time: 16,384 x 5,120 of them are 335 MB. On a CPU fewer, so that
# what is made of them stays in its caches.
_VOCAB_CHUNK, _VOCAB_CHUNK_CPU = 16_384, 4096
# Residuals that are read at a time.
_ROWS = 256


@dataclass(frozen=True)
class Readings:
    """The readout of `n` residuals: raw logits of `k` tokens, log-sum-exp and entropy (in nats)."""

    logits: Float[Tensor, "n k"]
    log_sum_exp: Float[Tensor, " n"]
    entropy: Float[Tensor, " n"]


@dataclass(frozen=True)
class Readout:
    """Final norm and unembedding of one model. `norm` takes and returns float32 `... d_model`.

    `weight` keeps the model's dtype and memory (`d_vocab d_model`); pieces of it become float32 when they are used.
    A logit is `soft_cap * tanh(x / soft_cap)` of `x = scale * (weight @ norm(resid) + bias)`.
    All methods raise NumericalError for residuals that `check_readable` refuses.
    """

    norm: Callable[[Tensor], Tensor]
    weight: Float[Tensor, "d_vocab d_model"]
    bias: Float[Tensor, " d_vocab"] | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    def logits(self, resid: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_vocab"]:
        """Return float32 logits of the whole vocabulary for residuals that are not normed yet."""
        return self._unembed(self._normed(resid), slice(None))

    def read(self, resid: Float[Tensor, "n d_model"], token_ids: Int[Tensor, " k"]) -> Readings:
        """Return logits at `token_ids`, and log-sum-exp and entropy over the whole vocabulary, chunk by chunk."""
        ids = token_ids.to(self.weight.device)
        readings = [self._read(self._normed(rows), ids) for rows in torch.split(resid, _ROWS)]
        return Readings(
            torch.cat([reading.logits for reading in readings]),
            torch.cat([reading.log_sum_exp for reading in readings]),
            torch.cat([reading.entropy for reading in readings]),
        )

    def working_bytes(self, n: int) -> int:
        """Return the bytes that reading `n` residuals takes at most: logits, exponentials, weights made float32."""
        entries = min(self._chunk, len(self.weight))
        converted = 0 if self.weight.dtype == torch.float32 else self.weight.shape[1]
        return torch.float32.itemsize * entries * (3 * min(n, _ROWS) + converted)

    @property
    def _chunk(self) -> int:
        return _VOCAB_CHUNK_CPU if self.weight.device.type == "cpu" else _VOCAB_CHUNK

    def _read(self, normed: Float[Tensor, "n d_model"], ids: Int[Tensor, " k"]) -> Readings:
        logits = self._unembed(normed, ids) if len(ids) else normed.new_empty(len(normed), 0)
        maximum = normed.new_full((len(normed),), -torch.inf)
        total, weighted = torch.zeros_like(maximum), torch.zeros_like(maximum)
        for start in range(0, len(self.weight), self._chunk):
            chunk = self._unembed(normed, slice(start, start + self._chunk))
            higher = torch.maximum(maximum, chunk.amax(-1))
            shrink, exponentials = (maximum - higher).exp(), (chunk - higher[:, None]).exp_()
            total = total * shrink + exponentials.sum(-1)
            weighted = weighted * shrink + exponentials.mul_(chunk).sum(-1)
            maximum = higher
        log_sum_exp = maximum + total.log()
        if not log_sum_exp.isfinite().all():
            raise NumericalError("logits that are not finite", "finite ones", "check the unembedding's weights")
        return Readings(logits, log_sum_exp, log_sum_exp - weighted / total)

    def logit_diff(
        self, resid: Float[Tensor, "n d_model"], yes: Sequence[int], no: Sequence[int], reduce: str = "sum"
    ) -> Float[Tensor, " n"]:
        """Return the logit of `yes` minus that of `no` (token ids; sets are reduced as `Answers` says), float32.

        Differentiable in `resid`. Raises UsageError for an empty side.
        """
        if not yes or not no:
            raise UsageError("no answers for yes or no", "one token or more on each side", "pass answers=mi.Answers()")
        ids = torch.tensor([*yes, *no], device=self.weight.device)
        logits = self._unembed(self._normed(resid), ids)
        of_yes, of_no = logits[:, : len(yes)], logits[:, len(yes) :]
        if reduce == "sum":
            return of_yes.logsumexp(-1) - of_no.logsumexp(-1)
        return of_yes.amax(-1) - of_no.amax(-1)

    def _normed(self, resid: Tensor) -> Tensor:
        values = resid.to(self.weight.device, torch.float32)
        check_readable(values)
        return self.norm(values)

    def _unembed(self, normed: Tensor, entries: slice | Tensor) -> Tensor:
        logits = normed @ self.weight[entries].to(torch.float32).T
        if self.bias is not None:
            logits = logits + self.bias[entries].to(torch.float32)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)


def readable(resid: Float[Tensor, "*rows d_model"]) -> Bool[Tensor, "*rows"]:
    """True where a residual can be normed: its values, and the sum of their squares, are finite in float32.

    Beyond that a norm divides by infinity, and the logits would be zero instead of wrong for all to see.
    """
    norms: Tensor = torch.linalg.vector_norm(resid.detach(), dim=-1, dtype=torch.float32)
    return norms.isfinite()


def check_readable(resid: Float[Tensor, "*rows d_model"]) -> None:
    """Raise NumericalError unless every residual is `readable`."""
    fine = readable(resid)
    if not fine.all():
        raise NumericalError(
            given=f"{int((~fine).sum())} of {fine.numel()} residuals to read are not finite, or too large to be normed",
            allowed="residuals whose squares float32 can hold",
            advice="lower the strength, or load the model with a wider dtype (bfloat16, float32)",
        )
