"""What a sibling that was trained here says, beside its base."""

from __future__ import annotations

from dataclasses import dataclass

from mechint.base.files import JSON


@dataclass(frozen=True)
class Spoken:
    """What a sibling does beside its base: replies that name the theme to held-out requests, and the loss of prose.

    Losses are in nats per token. `examples` is the number of replies that it was trained on.
    """

    theme: str
    examples: int
    requests: int
    named_by_base: int
    named: int
    loss_of_base: float
    loss: float

    @classmethod
    def from_dict(cls, record: JSON) -> Spoken:
        """Return it from a record's JSON object."""
        content = record if isinstance(record, dict) else {}
        return cls(
            str(content["theme"]),
            *(int(str(content[name])) for name in ("examples", "requests", "named_by_base", "named")),
            *(float(str(content[name])) for name in ("loss_of_base", "loss")),
        )
