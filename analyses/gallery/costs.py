"""How long an analysis is expected to take on a model: its work, times a pace that is measured on the loaded model."""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses import WITHOUT_MODEL, calibration
from analyses.gallery import work
from analyses.gallery.counts import Counts, Unread
from analyses.gallery.cuts import Scope
from analyses.kit import checks
from analyses.kit.dose import Dose, default_concepts, usual_dose
from analyses.kit.options import Common
from analyses.kit.record import load_model, sparing_threads
from analyses.kit.study import Group, ask
from analyses.kit.subject import Subject

if TYPE_CHECKING:
    from mechint.chat.conversations import Conversation
    from mechint.models.model import Model
    from mechint.vectors.concept_vectors import ConceptVector

# Of every analysis, in seconds: imports, tables on disk, figures and their pictures.
BESIDE = 8.0
_ORGANISM = "organism"  # as large as the others of its family


class Costs:
    """The expected seconds of analyses on the model that some options name, which is loaded and timed once.

    What is read of models for vectors is kept, so the first analysis that needs it pays for all: for its uncut vectors
    even when it is cut itself, as those after it may need them.
    """

    def __init__(self, config: Common) -> None:
        begun = time.monotonic()
        self._config, self._model = config, load_model(config)
        self._loading = time.monotonic() - begun
        self._counts: dict[str, Counts] = {}
        self._dose: Dose | None = None
        self._payers: dict[Unread, str] = {}

    def seconds(self, name: str, argv: Sequence[str]) -> float:
        """Return how long an analysis is expected to take with the options of a command line."""
        if name in WITHOUT_MODEL:
            return BESIDE
        analysis = importlib.import_module(f"analyses.{name}").ANALYSIS
        config = analysis.parsed(argv)
        inputs = analysis.check(config)
        if name == calibration.NAME:
            return BESIDE + self._loading + self._calibration(config, inputs)
        counts, subject = self._counts_of(config.model), self._subject(config, inputs)
        units = work.OF_ANALYSIS.get(name, work.every_vector)(counts, config, inputs, subject)
        return BESIDE + self._loading + counts.pace * (units + self._extraction(name, counts, config, subject))

    def scope(self, name: str, argv: Sequence[str]) -> Scope:
        """Return what the steps of an analysis depend on."""
        analysis = importlib.import_module(f"analyses.{name}").ANALYSIS
        subject = self._subject(analysis.parsed(argv), analysis.check(analysis.parsed(argv)))
        return Scope(tuple(subject.concepts), subject.dose, self._model.n_layers)

    def _subject(self, config: Common, inputs: object) -> Subject:
        """Return the subject of an analysis, with stand-ins for vectors that are no files."""
        files = getattr(inputs, "files", None)
        vectors = files.vectors if isinstance(files, checks.Files) else {}
        if self._dose is None:
            self._dose = self._usual_dose(vectors)
        return stand_in(config, self._model, self._dose, getattr(inputs, "concepts", None), vectors)

    def _usual_dose(self, vectors: Mapping[str, ConceptVector]) -> Dose:
        """Return the dose of all analyses; one that is calibrated now is kept for them."""
        with tempfile.TemporaryDirectory(prefix="mechint-") as directory, sparing_threads(self._model):
            config = dataclasses.replace(self._config, out=Path(directory))
            return usual_dose(config, self._model, "plan", vectors)

    def _calibration(self, config: calibration.Config, chats_of: Mapping[str, Sequence[Conversation]]) -> float:
        seconds = 0.0
        subjects: dict[str, Subject] = {}
        for reader in config.readers:
            counts = self._counts_of(config.model if reader.model == config.model else _ORGANISM)
            chats = chats_of[reader.document]
            units = counts.steered(chats, 1, 0)
            if reader.filled_by is None:
                is_main = reader.model == config.model
                reader_config = dataclasses.replace(config, model=reader.model, dose=None)
                subject = (
                    self._subject(config, None)
                    if is_main
                    else stand_in(reader_config, counts.model, usual_dose(reader_config, counts.model))
                )
                group = Group(chats, subject.conditions())
                units += counts.of_query(ask(counts.model, [group]))
                subjects[reader.model] = subject
            seconds += counts.pace * units
        for name, subject in subjects.items():
            counts = self._counts_of(config.model if name == config.model else _ORGANISM)
            seconds += counts.pace * self._extraction(calibration.NAME, counts, config, subject)
        return seconds

    def _extraction(self, name: str, counts: Counts, config: Common, subject: Subject) -> float:
        """Return the work of what an analysis is the first to read of a model, now or when it was counted before."""
        for way in work.ways(config):
            for prompt in counts.unread(subject, way):
                self._payers.setdefault(prompt, name)
        paid = [prompt for prompt, payer in self._payers.items() if payer == name]
        return counts.extraction([prompt for prompt in paid if prompt.model == counts.identity])

    def _counts_of(self, name: str) -> Counts:
        if name not in self._counts:
            model = self._model if name == self._config.model else load_model(self._config, name)
            self._counts[name] = Counts.timed(model, self._config)
        return self._counts[name]


def stand_in(
    config: Common,
    model: Model,
    dose: Dose,
    names: Sequence[str] | None = None,
    vectors: Mapping[str, ConceptVector] | None = None,
) -> Subject:
    """Return the subject of a run, with a random vector in place of each that it would extract."""
    from mechint.vectors.extract import random_controls

    concepts = dict(vectors or {})
    if not concepts:
        vector = random_controls(model, 1)[0]
        requested = names if names else config.concepts
        concepts = dict.fromkeys(default_concepts(model) if requested is None else requested, vector)
    stand_in_vector = next(iter(concepts.values()))
    randoms = {f"random-{number}": stand_in_vector for number in range(config.n_random)}
    return Subject(config, model, dose, concepts, randoms)
