"""The examples of a pass, as tokens side by side: first turns, question and the beginning of the reply.

Where the first turns are passed by themselves they end in the same column: padding is to the left of them, and to the
right of what follows. Elsewhere all padding is to the right, where nothing that counts can attend to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.chat.render import Rendered, render_all
from mechint.finetune.answer_tokens import check_tokens
from mechint.finetune.behaviour import behaviour_of
from mechint.finetune.examples import TextExample
from mechint.finetune.injections import injection_of, steered_positions
from mechint.finetune.specification import Recipe
from mechint.interventions.addition import Term
from mechint.interventions.prefill import check_fits, check_readable, injected_positions
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector

Places = Int[Tensor, "place 2"]  # row and column of tokens in a batch


@dataclass(frozen=True)
class Prompt:
    """An example as the model reads it: tokens, what is added where, and the tokens of its answers.

    `additions` are what is added at each layer, for each injection; `targets` the probability that each answer is to
    have.
    """

    example: TextExample
    rendered: Rendered
    intervention: Intervention
    additions: tuple[Mapping[int, Float[Tensor, " d_model"]], ...]
    answers: tuple[int, ...]
    targets: tuple[float, ...]

    @property
    def trunk(self) -> int:
        """How many tokens there are up to the end of the marked turns."""
        return self.rendered.prefix_length


class Prompts:
    """Makes examples of a recipe into prompts of a model; `concepts` are the vectors that it names."""

    def __init__(self, model: Model, recipe: Recipe, concepts: Mapping[str, ConceptVector] | None = None) -> None:
        self.model, self.recipe, self.concepts = model, recipe, concepts or {}
        self.answers = check_tokens(recipe, model.tokenizer)
        # To look it up takes a walk over all weights, which training never changes.
        self._unit = model.residual_norms if recipe.signal.relative else (1.0,) * model.n_layers
        # What a model itself answers is read once, before anything is trained.
        self.behaviour = behaviour_of(model, recipe) if recipe.labels.rule == "self" else None
        self._rendered: dict[tuple[str, ...], Rendered] = {}

    def of(self, examples: Sequence[TextExample]) -> list[Prompt]:
        """Return some examples as prompts; raises what `mi.score` raises for texts and vectors that do not fit."""
        complete = examples if self.behaviour is None else self.behaviour.completed(examples)
        texts = self._texts(complete)
        return [self._prompt(example, rendered) for example, rendered in zip(complete, texts, strict=True)]

    def _texts(self, examples: Sequence[TextExample]) -> list[Rendered]:
        """Return the texts of examples as tokens; a fixed set has few different ones, which are kept."""
        keys = [(example.system, *example.prompt, example.prefill) for example in examples]
        chats = {key: example.conversation() for key, example in zip(keys, examples, strict=True)}
        chats = {key: chat for key, chat in chats.items() if key not in self._rendered}
        if len(self._rendered) + len(chats) > _KEPT:
            self._rendered.clear()
            chats = {key: example.conversation() for key, example in zip(keys, examples, strict=True)}
        self._rendered |= dict(zip(chats, render_all(self.model, list(chats.values())), strict=True))
        return [self._rendered[key] for key in keys]

    def _prompt(self, example: TextExample, rendered: Rendered) -> Prompt:
        positions = steered_positions(self.model.tokenizer, rendered, example)
        intervention = injection_of(self.recipe, example, self.model.d_model, self.concepts, positions)
        check_readable(rendered, [intervention])
        check_fits(self.model, intervention)
        self.model.backend.context.check(len(rendered.tokens), f"example {rendered.label!r}")
        answers = tuple(self.answers[word] for word in example.answers)
        targets = tuple(example.target[word] for word in example.answers)
        additions = [
            {layer: term.amount_in(layer, self._unit[layer]) for layer in term.layers or ()}
            for term in intervention.terms
        ]
        return Prompt(example, rendered, intervention, tuple(additions), answers, targets)


_KEPT = 4096


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts side by side: tokens, which of them are real, and their positions.

    `first` is the column at which a row's question begins, `last` that from which its answer is predicted. The first
    `trunk` columns are the first turns where these are passed by themselves, else 0. `terms` are what is added to which
    row, where and at which layers.
    """

    tokens: Int[Tensor, "row pos"]
    real: Bool[Tensor, "row pos"]
    positions: Int[Tensor, "row pos"]
    first: Int[Tensor, " row"]
    last: Int[Tensor, " row"]
    trunk: int
    terms: tuple[Term, ...]
    answers: Int[Tensor, "row answer"]
    targets: Float[Tensor, "row answer"]

    @classmethod
    def of(cls, model: Model, prompts: Sequence[Prompt], *, split: bool) -> AnswerBatch:
        """Return prompts as a batch; with `split` their first turns end in the same column."""
        trunk = max(prompt.trunk for prompt in prompts) if split else 0
        starts = torch.tensor([trunk - prompt.trunk if split else 0 for prompt in prompts])
        lengths = torch.tensor([len(prompt.rendered.tokens) for prompt in prompts])
        n_pos = int((starts + lengths).max())
        columns = torch.arange(n_pos)[None, :]
        real = (columns >= starts[:, None]) & (columns < (starts + lengths)[:, None])
        tokens = torch.zeros((len(prompts), n_pos), dtype=torch.long)
        tokens[real] = torch.tensor([token for prompt in prompts for token in prompt.rendered.tokens])
        terms = [
            _terms(prompt, row, start, n_pos)
            for row, (prompt, start) in enumerate(zip(prompts, starts.tolist(), strict=True))
        ]
        return cls(
            tokens=tokens,
            real=real,
            positions=model.backend.context.within((columns - starts[:, None]).clamp(min=0)),
            first=starts + torch.tensor([prompt.trunk for prompt in prompts]),
            last=starts + lengths - 1,
            trunk=trunk,
            terms=tuple(term for of_row in terms for term in of_row),
            answers=torch.tensor([prompt.answers for prompt in prompts]),
            targets=torch.tensor([prompt.targets for prompt in prompts]),
        )

    @property
    def answer_places(self) -> Places:
        """Row and column of each answer."""
        return torch.stack([torch.arange(len(self.last)), self.last], dim=1)

    @property
    def question_places(self) -> Places:
        """Row and column of each token after the first turns, the last of a row being that of its answer."""
        columns = torch.arange(self.tokens.shape[1])[None, :]
        places: Places = (self.real & (columns >= self.first[:, None])).nonzero()
        return places


def _terms(prompt: Prompt, row: int, start: int, n_pos: int) -> list[Term]:
    """Return what is added to a row that begins at column `start`, where `prefill` would add it."""
    terms = []
    for injection, addition in zip(prompt.intervention.terms, prompt.additions, strict=True):
        positions = torch.zeros(n_pos, dtype=torch.bool)
        marked = injected_positions(prompt.rendered, injection)
        positions[start : start + len(marked)] = marked
        terms.append(Term(row, positions, addition))
    return terms
