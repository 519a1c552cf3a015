"""Facts: what `run.json` says of a run besides its options, as dataclasses that analyses add their own fields to.

Their fields are of types that pydantic can read back from a part of a shard; of JSON, whose type contains itself, they
say `object`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from analyses.kit.dose import CalibratedDose, Dose
from mechint.base.files import JSON

if TYPE_CHECKING:
    from mechint.models.model import Model

_Facts = TypeVar("_Facts")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model: its name, the hash of its weights, how it reads text, its sizes, and the unit of relative strengths."""

    name: str
    identity: str
    revision: str | None
    tokenizer: str
    template: Mapping[str, object]
    n_layers: int
    d_model: int
    unit: Mapping[str, object]

    @classmethod
    def of(cls, model: Model) -> ModelFacts:
        """Return the facts of a model."""
        from mechint.models.residual_scale import unit_record

        return cls(
            name=model.name,
            identity=model.identity,
            revision=model.revision,
            tokenizer=model.tokenizer_source,
            template=model.template.to_dict(),
            n_layers=model.n_layers,
            d_model=model.d_model,
            unit=unit_record(model),
        )

    @property
    def short_name(self) -> str:
        """The name for a figure: a directory by its last part, any other model by its whole name."""
        path = Path(self.name)
        return path.resolve().name if path.is_dir() else self.name


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run: its model, the dose, hashes of vectors by name, and the labels of conversations.

    `base` is the model that vectors and doses are of, where the model has an adapter on top of it.
    """

    model: ModelFacts
    dose: CalibratedDose | Dose
    vectors: Mapping[str, str]
    conversations: tuple[str, ...]
    base: str | None = None

    @property
    def caption(self) -> str:
        """What figures say of the run: its model, and what was injected where."""
        return f"{self.model.short_name}; {self.dose.caption()}"


def read(kind: type[_Facts], record: JSON) -> _Facts:
    """Return facts from what a record has written of them; raises ValueError for anything else."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(record)
