"""Text of a model's own: replies to neutral prompts of its prompt set, sampled once and kept in the cache folder.

It is for whatever is trained on what a model says by itself, such as an SAE of its stream.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path

from mechint.base.cache_folder import cache_folder
from mechint.base.errors import UsageError
from mechint.base.files import JSON, read_json, sha256, write_atomically
from mechint.base.progress import Progress, counted
from mechint.base.signatures import Count, Seed, checked
from mechint.chat.conversations import Conversation, Message
from mechint.chat.render import render_all
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model
from mechint.prompts.design import GROUPS, SLOT, PromptDesign
from mechint.readouts.generate import generate

_AT_ONCE = 128  # replies, and so many are kept in one file: what a killed run loses at most


@checked
@dataclass(frozen=True)
class TextRecipe:
    """How many neutral prompts are replied to, how often each, up to which length, and how tokens are drawn."""

    prompts: Count = 96
    samples: Count = 4
    max_new_tokens: Count = 96
    temperature: float = 1.0
    seed: Seed = 0


@checked
def neutral_prompts(model: Model, count: Count, seed: Seed = 0) -> list[str]:
    """Return up to `count` messages of the prompt set that ask about no concept, in an order drawn with `seed`.

    They are the open requests, the control questions, and the requests to write about neutral words.
    """
    design = PromptDesign.load(model.prompts)
    extraction = design.extraction
    questions = [question for group in GROUPS for question in design.controls[group]]
    pairs = zip(extraction.baseline_words, cycle(extraction.concept), strict=False)
    requests = [request.replace(SLOT, word) for word, request in pairs]
    prompts = [*extraction.baseline, *design.tasks.top_of_mind.prompts, *questions, *requests][:count]
    random.Random(seed).shuffle(prompts)
    return prompts


@dataclass(frozen=True)
class OwnText:
    """The replies of a model to neutral prompts, or to `messages`: which ones by a recipe, and where they are kept."""

    model: Model
    recipe: TextRecipe
    messages: tuple[str, ...] = ()

    @cached_property
    def prompts(self) -> list[Conversation]:
        """The prompts, whose labels are their numbers."""
        texts = self.messages
        if not texts:
            texts = tuple(neutral_prompts(self.model, self.recipe.prompts, self.recipe.seed))
        return [Conversation(str(number), (Message("user", text),)) for number, text in enumerate(texts)]

    @cached_property
    def key(self) -> str:
        """A hash of the recipe, the prompts as the model reads them, and its weights."""
        rows: list[JSON] = [list(rendered.tokens) for rendered in render_all(self.model, self.prompts)]
        content = json.dumps([asdict(self.recipe), rows], sort_keys=True)
        return sha256(self.model.identity.encode(), self.model.dtype_name.encode(), content.encode())

    @property
    def is_kept(self) -> bool:
        """Whether all replies are in the cache folder."""
        return all(_kept(file) is not None for file, _ in self._batches())

    def replies(self, progress: Progress | bool | None = None) -> list[Conversation]:
        """Return each reply after its prompt, whose number is the label; sampled now as far as they are not kept.

        A call that was killed goes on after its last batch. Raises UsageError for a model that says nothing,
        OutputError where the cache folder cannot be written.
        """
        spoken: list[Conversation] = []
        total = len(self.prompts) * self.recipe.samples
        with counted(progress, f"{self.model.name}: text of its own", total, "reply") as tell:
            for file, prompts in self._batches():
                texts = _kept(file)
                if texts is None:
                    texts = self._sampled(prompts, tell)
                    write_atomically(file, json.dumps(texts) + "\n")
                elif tell is not None:
                    tell(len(prompts) * self.recipe.samples, 0)
                spoken += self._conversations(prompts, texts)
        if not spoken:
            raise UsageError(
                given=f"{self.model.name}, which says nothing to {len(self.prompts)} prompts",
                allowed="a chat model that replies",
                advice="look at mi.generate(model, ...): is the chat template the model's own?",
            )
        return spoken

    def _batches(self) -> list[tuple[Path, list[Conversation]]]:
        size = max(1, _AT_ONCE // self.recipe.samples)
        folder = cache_folder() / "texts" / self.key[:32]
        starts = range(0, len(self.prompts), size)
        return [(folder / f"{start:04}.json", self.prompts[start : start + size]) for start in starts]

    def _sampled(self, prompts: list[Conversation], tell: Progress | None) -> list[str]:
        """Return the replies to some prompts, `samples` of the first, then of the second, and so on."""
        recipe = self.recipe
        table = generate(
            self.model,
            prompts,
            CLEAN,
            max_new_tokens=recipe.max_new_tokens,
            temperature=recipe.temperature,
            n=recipe.samples,
            seed=recipe.seed,
            batch_size=_AT_ONCE,
            progress=tell,
        )
        return [str(text) for text in table["text"]]

    def _conversations(self, prompts: list[Conversation], texts: list[str]) -> list[Conversation]:
        n = self.recipe.samples
        rows = [(prompts[row // n], text) for row, text in enumerate(texts) if text.strip()]
        return [
            Conversation(prompt.label, (*prompt.messages, Message("assistant", text, continue_msg=True)))
            for prompt, text in rows
        ]


@checked
def own_text(
    model: Model, recipe: TextRecipe | None = None, *, progress: Progress | bool | None = None
) -> list[Conversation]:
    """Return the replies of a model to neutral prompts, as `OwnText.replies` does."""
    return OwnText(model, recipe or TextRecipe()).replies(progress)


def _kept(file: Path) -> list[str] | None:
    """Return the replies in a file; None where there are none, or no such thing."""
    try:
        content = read_json(file)
    except UsageError:
        return None
    return [str(text) for text in content] if isinstance(content, list) else None
