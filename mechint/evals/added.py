"""What is added in detection trials: vectors of a pool, at each range of layers and each dose of a recipe.

"trained" and "held-out" are the recipe's own vectors, trained and not; "negated" the trained ones with their sign
turned, which no training had; "concept" vectors that are brought along. "null" has strength 0: it must be clean to the
last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mechint.base.errors import UnknownNameError, UsageError
from mechint.evals.responders import Oracle, Responder
from mechint.finetune.draws import vector_count
from mechint.finetune.examples import TextExample, strength, vector_name
from mechint.finetune.injections import fixed_dose, injection_of
from mechint.finetune.pools import Split
from mechint.finetune.sampling import generator
from mechint.finetune.signal import blocks_of
from mechint.finetune.specification import Recipe
from mechint.interventions.specifications import Injection, Intervention
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector

POOLS = ("trained", "held-out", "negated", "concept")
NULL = "null"
Concepts = Mapping[str, ConceptVector]


@dataclass(frozen=True)
class Added:
    """An injection, and what is told of it in a table; `layers` is the range, also where one block of it is drawn."""

    pool: str
    vector: str
    layers: str
    dose: float
    intervention: Intervention


@dataclass(frozen=True)
class Adding:
    """What decides the injections: the recipe whose signal it is, the shape of the model, and other vectors.

    `base` is the model in whose norms of the stream doses are measured; the asked model's own where None.
    """

    recipe: Recipe
    responder: Responder
    concepts: Concepts
    base: Model | None = None

    def pool(self, pool: str, source: TextExample, vectors: int, seed: int) -> list[Added]:
        """Return an injection for each of some vectors of a pool, each range of layers and each dose.

        `source` is any example of the recipe. Raises UnknownNameError for a pool that there is not, UsageError for
        a recipe without a signal, fewer vectors than are asked for, and "concept" without vectors.
        """
        names = self._names(pool, vectors, seed)
        signal = self.recipe.signal
        cells = [(name, layers, dose) for layers in signal.layers for dose in signal.dose for name in names]
        return [self._added(pool, source, cell, seed + at) for at, cell in enumerate(cells)]

    def null(self, added: Added) -> Added:
        """Return an injection at strength 0."""
        (term,) = added.intervention.terms
        nothing = replace(term, strength=0.0, relative_strength=None, name=NULL)
        return replace(added, pool=NULL, dose=0.0, intervention=nothing)

    def _names(self, pool: str, vectors: int, seed: int) -> list[str]:
        if pool not in POOLS:
            raise UnknownNameError(f"pool {pool!r}", ", ".join(POOLS), "name these")
        if pool == "concept":
            names = list(self.concepts)
        else:
            split: Split = "held_out" if pool == "held-out" else "train"
            is_named = self.recipe.signal.vectors == "concept"
            count = len(self.recipe.concepts(split)) if is_named else vector_count(self.recipe, split)
            names = [vector_name(self.recipe, split, number) for number in range(count)]
        if len(names) < vectors:
            raise UsageError(
                given=f"{vectors} vectors of the pool {pool!r}, which has {len(names)}",
                allowed=f"at most {len(names)}" if names else "pools that have vectors",
                advice="ask for fewer, or bring concepts={name: ConceptVector}",
            )
        order = generator(seed, f"pool {pool}", 0, 0).permutation(len(names))
        return [names[at] for at in order[:vectors]]

    def _added(self, pool: str, source: TextExample, cell: tuple[str, str, float], seed: int) -> Added:
        name, layers, dose = cell
        signal = self.recipe.signal
        first, stop = blocks_of(layers, signal.blocks)
        if signal.single:
            first += int(generator(seed, "single block", 0, 0).integers(stop - first))
            stop = first + 1
        steered = replace(
            source,
            steered=True,
            vector=name,
            first_block=first,
            stop_block=stop,
            dose=dose,
            strength=strength(self.recipe, dose, stop - first),
            relative=signal.relative,
        )
        (term,) = self._injection(pool, steered).terms
        vector = -term.vector if pool == "negated" else term.vector
        named = replace(term, vector=vector, name=f"{pool} {name} {layers} {dose:g}")
        label = f"-{name}" if pool == "negated" else name
        return Added(pool, label, layers, dose, self._fixed(named))

    def _fixed(self, injection: Injection) -> Intervention:
        return (
            injection if self.base is None or isinstance(self.responder, Oracle) else fixed_dose(injection, self.base)
        )

    def _injection(self, pool: str, steered: TextExample) -> Intervention:
        """Return what an example adds; of vectors that were brought along, their own direction at each layer."""
        if pool != "concept":
            return injection_of(self.recipe, steered, self.responder.d_model, self.concepts)
        vector = self.concepts[steered.vector].at(steered.layers).directions()
        if steered.relative:
            return Injection(vector, tuple(steered.layers), relative_strength=steered.strength)
        return Injection(vector, tuple(steered.layers), strength=steered.strength)


def check_signal(recipe: Recipe, pools: Sequence[str]) -> None:
    """Raise UsageError for a recipe that adds nothing, or whose labels say which concept rather than whether."""
    if recipe.signal.vectors == "none":
        raise UsageError(
            given=f"detection with recipe {recipe.name!r}, which adds nothing",
            allowed="a signal to be detected",
            advice="give signal=, that of the recipe it is compared with: Recipe.load('matched/original').signal",
        )
    if recipe.labels.rule == "concept":
        raise UsageError(
            given=f"detection with recipe {recipe.name!r}, which asks which concept it is",
            allowed="questions whose answer differs between steered and clean",
            advice="read it with identification instead",
        )
    if len(set(pools)) < len(pools) or not pools:
        raise UsageError(f"pools {list(pools)}", "one or more, each once", f"choose among {', '.join(POOLS)}")
