"""What a sweep of trials asks for: vectors, layers, strengths, prompts, controls and numbers of samples, as data.

    design = TrialDesign(concepts=("oceans", "fear"), layers=("10:20",), strengths=(0.02, 0.04), samples=20)
    TrialDesign.load("design.json")      # the same as a file: {"concepts": ["oceans", "fear"], "samples": 20, ...}

Of every place (layers, strength, mode) each concept has `samples` replies to each prompt, and random vectors have as
many. Clean replies depend on no place, so they are one pool for each prompt. Control questions are asked under the same
vectors at the same places. With a pilot, concepts are dropped at places where hardly a reply can be read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mechint.base.errors import LayerRangeError, UsageError
from mechint.base.files import JSON, read_json, sha256

_FORBID_UNKNOWN = {"extra": "forbid"}
_OF_PILOT = ("rules", "rules+loss", "local")  # kinds of judges on this machine


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What stands beside the injected trials, as numbers.

    `clean`: replies to each prompt without any vector, one pool for all places. `random`: random vectors of the same
    norm. `no`, `yes`, `none`: questions whose answer is no, is yes, and requests that ask for nothing, how many of each
    are put under every vector at every place, and clean. `mention`: clean replies to the prompt with each concept's
    name before it.
    """

    __pydantic_config__ = _FORBID_UNKNOWN

    clean: int = 400
    random: int = 4
    no: int = 1
    yes: int = 1
    none: int = 1
    mention: int = 20

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            _check_number(f"controls, {name}", value, least=0)


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """The first `samples` replies of every cell, after which cells are dropped that cannot be read.

    A cell is a concept at a place, under all prompts together, so that prompts keep the same cells. It is dropped if
    less than a share `coherence` of its pilot is coherent to the judge. Controls are never dropped.
    """

    __pydantic_config__ = _FORBID_UNKNOWN

    samples: int = 4
    coherence: float = 0.2
    judge: str = "rules"

    def __post_init__(self) -> None:
        _check_number("pilot, samples", self.samples, least=1)
        if not 0 < self.coherence <= 1:
            raise UsageError(f"pilot, coherence={self.coherence:g}", "a share above 0, 1 at most", "give 0.2, say")
        if self.judge.partition(":")[0] not in _OF_PILOT:
            raise UsageError(
                given=f"pilot, judge {self.judge!r}",
                allowed="rules, rules+loss:MODEL, local:MODEL: a server is told what it costs first",
                advice='take "rules"; all that is left may be read by another judge afterwards',
            )


@dataclass(frozen=True, kw_only=True)
class TrialDesign:
    """A sweep. Raises UsageError for what contradicts itself; what depends on the model is checked by `places`.

    `concepts` may be joined, "curiosity+oceans": both are injected at once, each at the strength. `layers` are blocks
    as text ("20", "10:20") or `depths` fractions of the model's, one block each; one of the two. `strengths` are in
    units of the median norm of the stream, unless `relative` is False. `steer` are modes of `mi.generate`, or
    "from:TEXT". `reply_start` begins every reply (forced identification: a claim; what is named then is scored).
    `ablate` names the vector of a direction that is removed from the stream of the whole sweep, clean replies too
    (`mi.ablate`), as one of refusals. `samples` is how many replies a concept has at a place; questions that are
    controls have `control_samples`. A `pilot` is part of the samples.
    """

    __pydantic_config__ = _FORBID_UNKNOWN

    concepts: tuple[str, ...]
    layers: tuple[str, ...] = ()
    depths: tuple[float, ...] = ()
    strengths: tuple[float, ...] = ()
    relative: bool = True
    prompts: tuple[str, ...] = ("standard",)
    steer: tuple[str, ...] = ("reply",)
    samples: int = 20
    control_samples: int = 4
    controls: Controls = field(default_factory=Controls)
    reply_start: str = ""
    ablate: str = ""
    temperature: float = 1.0
    max_new_tokens: int = 100
    seed: int = 0
    pilot: Pilot | None = None

    def __post_init__(self) -> None:
        for name in ("concepts", "strengths", "prompts", "steer"):
            _check_list(name, getattr(self, name))
        if bool(self.layers) == bool(self.depths):
            given = "both layers and depths" if self.layers else "neither layers nor depths"
            raise UsageError(f"a design with {given}", "one of them", 'give layers=("10:20",) or depths=(0.6,)')
        _check_list("places", (*self.layers, *self.depths))
        for depth in self.depths:
            if not 0 <= depth <= 1:
                raise UsageError(f"depth {depth}", "0 (first block) to 1 (last block)", "give a fraction")
        if 0 in self.strengths:
            raise UsageError("strength 0", "strengths other than 0", "leave it out: clean trials are drawn anyway")
        for name in ("samples", "control_samples", "max_new_tokens"):
            _check_number(name, getattr(self, name), least=1)
        _check_number("seed", self.seed, least=0)
        if self.temperature <= 0 and max(self.samples, self.control_samples, self.controls.clean) > 1:
            raise UsageError(
                given=f"several samples at temperature {self.temperature:g}, which are all the same",
                allowed="a temperature above 0",
                advice="set temperature to 1.0, or samples, control_samples and controls.clean to 1",
            )
        if self.pilot is not None and self.pilot.samples >= self.samples:
            raise UsageError(
                given=f"a pilot of {self.pilot.samples} of {self.samples} samples, which saves none",
                allowed="fewer samples in the pilot than in the design",
                advice="raise samples, or leave the pilot out",
            )

    @classmethod
    def load(cls, path: str | Path) -> TrialDesign:
        """Return the design of a JSON file. Raises UsageError, naming the place, for what is no design."""
        return cls.from_dict(read_json(Path(path)), str(path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "design") -> TrialDesign:
        """Return the design that a JSON object describes. Raises UsageError, naming the place."""
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"]) or "the object"
            names = ", ".join(cls.__dataclass_fields__)
            raise UsageError(f"{where}, {place}: {first['msg']}", f"the fields {names}", "correct the file") from error

    def to_dict(self) -> dict[str, JSON]:
        """Return the design as JSON; one without a pilot, or with nothing to ablate, does not speak of it."""
        record: dict[str, JSON] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in record.items() if name not in ("pilot", "ablate") or value}

    @property
    def key(self) -> str:
        """Hash of all that the design says."""
        return sha256(json.dumps(self.to_dict(), sort_keys=True).encode())

    @property
    def names(self) -> tuple[str, ...]:
        """Every concept of which a vector is needed, each once."""
        return tuple(dict.fromkeys(name for concept in self.concepts for name in concept.split("+")))

    def places(self, n_layers: int) -> list[Place]:
        """Return every combination of layers, strength and mode. Raises LayerRangeError for layers beyond a model's."""
        ranges = [_layers(text, n_layers) for text in self.layers]
        # The last block is at depth 1, and a depth between two blocks is the nearer one's.
        ranges += [(round(depth * (n_layers - 1)),) for depth in self.depths]
        _check_list("layers of this model", [str(layers) for layers in ranges])
        return [
            Place(layers, strength, steer) for steer in self.steer for layers in ranges for strength in self.strengths
        ]


@dataclass(frozen=True)
class Place:
    """Where, how strongly and when something is injected."""

    layers: tuple[int, ...]
    strength: float
    steer: str

    @property
    def layers_text(self) -> str:
        """The layers as they stand in tables: "20", "10:20"."""
        first, last = self.layers[0], self.layers[-1]
        return str(first) if first == last else f"{first}:{last + 1}"

    def depth(self, n_layers: int) -> float:
        """The middle of the layers, from 0 (the first block) to 1 (the last)."""
        return (self.layers[0] + self.layers[-1]) / 2 / max(1, n_layers - 1)


def _layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Return the layers of "20" or "10:20"."""
    first, colon, stop = text.strip().partition(":")
    numbers = [first, stop] if colon else [first]
    if not all(number.strip().isdigit() for number in numbers):
        raise LayerRangeError(f"layers {text!r}", '"20" or "10:20"', "give one block, or first and stop")
    layers = tuple(range(int(first), int(stop) if colon else int(first) + 1))
    if not layers or layers[-1] >= n_layers:
        raise LayerRangeError(f"layers {text!r}", f"blocks 0 to {n_layers - 1}, first below stop", "choose among these")
    return layers


def _check_list(name: str, values: Sequence[object]) -> None:
    if not values:
        raise UsageError(f"no {name}", "one or more", f"give {name}")
    if len(set(values)) < len(values):
        raise UsageError(f"{name} {list(values)}, one of them twice", "each once", "leave the second out")


def _check_number(name: str, value: int, *, least: int) -> None:
    if value < least:
        raise UsageError(f"{name}={value}", f"{least} or more", f"give {name} of at least {least}")
