"""A new kind of intervention is one class: nothing in the library asks which class an intervention is of."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from conftest import Load, conversation, vector

import mechint as mi
from mechint.base.errors import UsageError
from mechint.base.files import sha256
from mechint.interventions.fillers import ModelFiller
from mechint.interventions.prefill import prefill
from mechint.interventions.specifications import CLEAN, Injection, Intervention, Swap

ROOT = Path(mi.__file__).parent
CLASSES = {"Clean", "Injection", "InjectionSum", "Swap", "Filled"}
# Equality and sums of injections; and Ray, which is sent the arguments of a swap's model instead of its weights.
MAY_ASK = {"interventions/specifications.py", "readouts/ray_engine.py"}


@dataclass(frozen=True)
class Ramp(Intervention):
    """One vector that grows from layer to layer."""

    vector: mi.ConceptVector
    name: str = "ramp"

    @property
    def key(self) -> str:
        return sha256(b"ramp", self.vector.fingerprint().encode())

    @property
    def terms(self) -> tuple[Injection, ...]:
        return tuple(Injection(self.vector, layers=[layer], strength=float(layer)) for layer in (1, 2))


@dataclass(frozen=True)
class Impostor(Intervention):
    """Another model under a name of its own."""

    model: mi.Model
    name: str = "impostor"

    @property
    def key(self) -> str:
        return sha256(b"impostor", self.model.identity.encode())

    @property
    def filler(self) -> ModelFiller:
        return ModelFiller(self.name, self.model, self.model.identity)


@pytest.fixture
def pairs(model: mi.Model, tiny_model: Load) -> list[tuple[Intervention, Intervention]]:
    """Each new kind with what the library has for the same."""
    ramp, other = Ramp(vector(model)), tiny_model("qwen2", seed=1)
    first, second = ramp.terms
    return [(ramp, (first + second).renamed("ramp")), (Impostor(other), Swap(other, "impostor"))]


def test_a_new_kind_is_prefilled_planned_read_and_generated_from(model: mi.Model, pairs: list[tuple]) -> None:
    for new, same in pairs:
        chats, steers = conversation(), ([CLEAN, new], [CLEAN, same])
        tables = [mi.score(model, chats, listed) for listed in steers]
        pd.testing.assert_frame_equal(*tables)
        assert tables[0].attrs["receipts"] == tables[1].attrs["receipts"]
        assert abs(tables[0]["logit_diff_shift"][1]) > 0.001
        filled = [prefill(model, chats, listed) for listed in steers]
        assert filled[0].receipts == filled[1].receipts
        assert filled[0].cache.fingerprint() == filled[1].cache.fingerprint()
        assert mi.explain(model, chats, steers[0]) == mi.explain(model, chats, steers[1])
        replies = [mi.generate(model, chats, listed, max_new_tokens=3, steer="onward") for listed in steers]
        pd.testing.assert_frame_equal(*replies)
        pd.testing.assert_frame_equal(*[mi.text_loss(model, "Four words of text.", listed) for listed in steers])


def test_a_new_kind_keeps_to_the_form(model: mi.Model, pairs: list[tuple]) -> None:
    @dataclass(frozen=True)
    class Both(Ramp):
        filler: ModelFiller | None = None

    (ramp, _), (impostor, _) = pairs
    with pytest.raises(UsageError, match="any name but 'clean'"):
        mi.score(model, conversation(), Ramp(ramp.vector, name="clean"))
    with pytest.raises(UsageError, match="terms and a filler"):
        mi.score(model, conversation(), Both(ramp.vector, filler=impostor.filler))
    with pytest.raises(UsageError, match="an Intervention"):
        mi.score(model, conversation(), "ramp")


def test_no_module_asks_which_class_an_intervention_is_of() -> None:
    asking = set()
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                classes = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                asking |= {path.relative_to(ROOT).as_posix()} if classes & CLASSES else set()
    assert asking <= MAY_ASK
