"""How well an SAE that was trained here does on tokens that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

from mechint.base.files import JSON

_SHARES = ("explained", "l0", "dead", "loss", "loss_recovered")


@dataclass(frozen=True)
class HeldOut:
    """What was measured of an SAE on `tokens` held out, after training on `trained_on` others.

    `explained`: 1 - |x - x'|^2 / |x - mean|^2; `l0`: mean number of active features; `dead`: share of features that are
    active nowhere; `loss_recovered`: of the loss that the model has more when the mean stands in for each residual, the
    share that it does not have when the SAE's reconstruction does. `loss` is its own, in nats per token.
    """

    trained_on: int
    tokens: int
    explained: float
    l0: float
    dead: float
    loss: float
    loss_recovered: float

    @classmethod
    def from_dict(cls, record: JSON) -> HeldOut:
        """Return it from a record's JSON object."""
        numbers = record if isinstance(record, dict) else {}
        shares = {name: float(str(numbers[name])) for name in _SHARES}
        return cls(int(str(numbers["trained_on"])), int(str(numbers["tokens"])), **shares)
