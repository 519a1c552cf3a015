"""A dose for a model that has no published one: tried on it once, in minutes, and kept in the cache folder.

The name of a kept dose says what it depends on: the weights and how they are run, what is tried, the vectors, the seed,
and the version of the rule. What was changed is never met; what was damaged is made again.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import dose_rule, facts
from analyses.kit.dose import CalibratedDose, Dose, common_layers, default_concepts, method_of, random_vectors
from analyses.kit.dose_proposal import Proposal
from analyses.kit.dose_trial import STRENGTHS, WINDOWS, Plan, Trial, extractions, run_trial, windows
from analyses.kit.plain_text import Texts
from analyses.kit.record import as_json
from analyses.kit.subject import Subject
from mechint.base.artefacts import FileKind, reading
from mechint.base.cache_folder import cache_folder
from mechint.base.errors import OutputError, StaleArtefactError
from mechint.base.files import sha256, write_atomically
from mechint.base.progress import announce

if TYPE_CHECKING:
    from analyses.kit.options import Common
    from mechint.models.model import Model
    from mechint.vectors.concept_vectors import ConceptVector

# The usual extraction and, against other concepts, those that cost little: they read no neutral words.
EXTRACTIONS = ("paired_pca/concept/others", "mean_difference/concept/others", "mean_difference/message/others")
_N_CONCEPTS, _N_RANDOM, _N_WINDOWS = 4, 3, 3
_KIND = FileKind("a calibrated dose", "a file as it was written", "remove the file", StaleArtefactError)


def calibrated_dose(
    config: Common, model: Model, analysis: str, layers: Sequence[int] | None, files: Mapping[str, ConceptVector]
) -> CalibratedDose:
    """Return the dose that the rule proposes for a model: one that is kept, else tried now and kept.

    `layers` are the only ones to try (None: windows over the depth). `files` are vectors to try, in place of those of
    the usual concepts.
    """
    quick = _Quick(config, model, analysis, None if layers is None else tuple(layers), files)
    path = quick.path()
    proposal = None if path is None else _kept(path)
    if proposal is None:
        announce(
            f"{analysis}: no dose is known for {config.model}; it is calibrated now, which takes minutes, and kept for "
            "later runs. None is needed with --layers and --relative-strength, or with --dose default"
        )
        proposal = quick.propose()
        if path is not None:
            with suppress(OutputError):  # a cache folder that cannot be written costs the time of the next calibration
                write_atomically(path, json.dumps(as_json(proposal), indent=1) + "\n")
    announce(f"{analysis}: {proposal.text}")
    return CalibratedDose.of(proposal)


@dataclasses.dataclass(frozen=True)
class _Quick:
    """A quick trial: few concepts, few texts, few replies."""

    config: Common
    model: Model
    analysis: str
    layers: tuple[int, ...] | None
    files: Mapping[str, ConceptVector]

    @property
    def vectors(self) -> dict[str, ConceptVector]:
        """The first vectors of files."""
        return dict(list(self.files.items())[:_N_CONCEPTS])

    @property
    def listed(self) -> tuple[str, ...]:
        """The extractions to choose from beside the usual one: none where the options name it."""
        return EXTRACTIONS if self.config.method is None else ()

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concepts whose vectors are extracted, whichever a run asks about."""
        return default_concepts(self.model)[:_N_CONCEPTS]

    @property
    def plan(self) -> Plan:
        """What is tried."""
        n_layers = self.model.n_layers
        available = common_layers(self.files) if self.files else range(n_layers)
        spread = windows(WINDOWS, n_layers, available) if self.layers is None else (self.layers,)
        central = sorted(dose_rule.from_the_middle(spread)[:_N_WINDOWS])
        return Plan(
            tuple(spread[at] for at in central), STRENGTHS[1:-1], n_texts=1, n_requests=1, n_tokens=24, thorough=False
        )

    def path(self) -> Path | None:
        """Return where the proposal is kept; None for a user without a home folder."""
        model, config = self.model, self.config
        run = [model.identity, model.backend.kind, str(model.backend.dtype), model.template.to_dict()]
        tried = [method_of(config, model), self.listed, self.concepts, repr(self.plan), _N_RANDOM]
        read = [vector.fingerprint() for vector in self.vectors.values()]
        key = sha256(json.dumps([dose_rule.VERSION, run, tried, read, config.seed], sort_keys=True).encode())
        try:
            return cache_folder() / "doses" / f"{key[:32]}.json"
        except RuntimeError:
            return None

    def propose(self) -> Proposal:
        """Try, and return what the rule proposes."""
        plan = self.plan
        with tempfile.TemporaryDirectory(prefix="mechint-") as folder:
            config = dataclasses.replace(self.config, concepts=self.concepts, n_random=_N_RANDOM, shard=None)
            vectors = extractions(config, self.model, self.analysis, self.vectors, self.listed)
            config = dataclasses.replace(config, out=Path(folder))
            concepts = next(iter(vectors.values()))
            randoms = random_vectors(config, self.model, list(concepts.values()))
            start = Dose(plan.layers[0], None, plan.strengths[0], "tried")
            subject = Subject(config, self.model, start, concepts, randoms, self.analysis)
            _, proposal = run_trial(Trial(subject, "dose", plan, vectors), Texts.of(subject))
        return proposal


def _kept(path: Path) -> Proposal | None:
    if not path.is_file():
        return None
    try:
        with reading(path, _KIND):
            return facts.read(Proposal, json.loads(path.read_text(encoding="utf-8")))
    except StaleArtefactError:
        return None
