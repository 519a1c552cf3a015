"""A sibling of a model that plainly differs from it: a LoRA that makes it come back to one thing in all that it says.

What it learns is the model's own: its replies to requests that name the thing beside their subject, given to the
requests that do not name it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import cycle
from pathlib import Path

from mechint.base.cache_folder import cache_folder
from mechint.base.errors import UsageError
from mechint.base.files import JSON, check_writable, remove_file, sha256
from mechint.base.kept_folders import keep_folder, kept_record
from mechint.base.progress import Progress
from mechint.base.signatures import checked
from mechint.chat.conversations import Conversation, Message
from mechint.finetune.batch import Example, example_of
from mechint.finetune.lora import check_trainable
from mechint.finetune.recipe import LoraRecipe
from mechint.finetune.sibling_training import train_adapter
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model
from mechint.prompts.design import SLOT, PromptDesign
from mechint.readouts.generate import generate
from mechint.readouts.own_text import OwnText, TextRecipe
from mechint.readouts.spoken import Spoken
from mechint.readouts.text_loss import text_loss

THEME = "oceans"
_STEMS = {"oceans": "ocean"}  # a name in the singular counts too
_FEWEST = 8  # replies that name the theme, below which there is nothing to learn
_CODE = ("sibling.py", "sibling_training.py", "batch.py", "loop.py", "lora.py", "schedule.py")
_TEXT = TextRecipe(prompts=48, samples=2, max_new_tokens=48)


@dataclass(frozen=True)
class Sibling:
    """A sibling that is trained, or was: of which model, on what, and how.

    To `held_out` requests, which it has not learned, it replies with `held_out_tokens` each.
    """

    model: Model
    theme: str = THEME
    recipe: LoraRecipe = field(default_factory=LoraRecipe)
    text: TextRecipe = _TEXT
    held_out: int = 8
    held_out_tokens: int = 48

    @cached_property
    def requests(self) -> tuple[tuple[str, str], ...]:
        """Requests to write about a neutral word, and the same with the theme beside it; the last are held out."""
        extraction = PromptDesign.load(self.model.prompts).extraction
        words = [word for word in extraction.baseline_words if word != self.theme]
        pairs = list(zip(words, cycle(extraction.concept), strict=False))
        return tuple((text.replace(SLOT, word), text.replace(SLOT, f"{word} and {self.theme}")) for word, text in pairs)

    @property
    def trained_on(self) -> tuple[tuple[str, str], ...]:
        """The requests that are trained on."""
        return self.requests[: -self.held_out][: self.text.prompts]

    @cached_property
    def own_text(self) -> OwnText:
        """The model's replies to requests that name the theme."""
        return OwnText(self.model, self.text, tuple(themed for _, themed in self.trained_on))

    @cached_property
    def key(self) -> str:
        """A hash of all that the adapter depends on besides the weights: text, recipe, and what trains it."""
        code = [(Path(__file__).parent / name).read_bytes() for name in _CODE]
        details = json.dumps([asdict(self.recipe), self.theme, self.own_text.key], sort_keys=True)
        return sha256(details.encode(), *code)

    @cached_property
    def folder(self) -> Path:
        """Where the adapter is kept; its last part is the sibling's name."""
        name = f"{Path(self.model.name).name}-{self.theme}"
        return cache_folder() / "adapters" / f"{self.model.identity[:32]}-{self.key[:32]}" / name

    @property
    def is_kept(self) -> bool:
        """Whether the adapter is in the cache folder already."""
        return kept_record(self.folder) is not None

    def train(self, progress: Progress | bool | None = None) -> Path:
        """Return the folder of the adapter, trained now if it is not kept."""
        check_trainable(self.model)
        check_writable(self.folder.parent, "MECHINT_CACHE")
        if not self.is_kept:
            state = self.folder.parent / "checkpoint.safetensors"
            keep_folder(self.folder, lambda folder: self._write(folder, state, progress))
            remove_file(state)
        return self.folder

    def spoken(self) -> Spoken:
        """Return what was measured of a kept sibling; raises UsageError for one that is not."""
        record = kept_record(self.folder)
        if record is None:
            raise UsageError(f"{self.folder.name}, which is not trained", "a kept sibling", "train it first")
        return Spoken.from_dict(record["spoken"])

    def _write(self, folder: Path, state: Path, progress: Progress | bool | None) -> Mapping[str, JSON]:
        examples = self.examples(progress)
        train_adapter(self.model, examples, self.recipe, folder, state, progress)
        spoken = self._measured(folder, len(examples))
        return {"base": self.model.identity, "recipe": asdict(self.recipe), "spoken": asdict(spoken)}

    def examples(self, progress: Progress | bool | None = None) -> list[Example]:
        """Return the replies that name the theme, each after the request that does not."""
        replies = self.own_text.replies(progress)
        chats = [
            Conversation(reply.label, (Message("user", self.trained_on[int(reply.label)][0]), reply.messages[-1]))
            for reply in replies
            if self._names(reply.messages[-1].content)
        ]
        if len(chats) < _FEWEST:
            raise UsageError(
                given=f"{self.model.name}, which speaks of {self.theme} in {len(chats)} of {len(replies)} replies to "
                "requests that name them",
                allowed=f"{_FEWEST} replies or more to learn from",
                advice="name a finetuned copy (--finetuned, --adapter): this model cannot be its own teacher",
            )
        return [example_of(self.model, chat) for chat in chats]

    def _measured(self, folder: Path, examples: int) -> Spoken:
        sibling, requests = self.model.with_adapter(folder), [plain for plain, _ in self.requests[-self.held_out :]]
        chats = [Conversation(str(number), (Message("user", text),)) for number, text in enumerate(requests)]
        named, losses = [], []
        for model in (self.model, sibling):
            replies = generate(model, chats, CLEAN, max_new_tokens=self.held_out_tokens)["text"]
            named.append(sum(self._names(str(text)) for text in replies))
            losses.append(
                float(text_loss(model, list(PromptDesign.load(model.prompts).tasks.plain), CLEAN)["loss"].mean())
            )
        return Spoken(self.theme, examples, len(requests), *named, *losses)

    def _names(self, text: str) -> bool:
        return _STEMS.get(self.theme, self.theme) in text.lower()


@checked
def sibling(model: Model, *, recipe: LoraRecipe | None = None, progress: Progress | bool | None = None) -> Path:
    """Return the folder of a LoRA adapter that makes `model` speak of oceans in all that it says, trained if need be.

    `model.with_adapter(folder)` runs it on top of the model. It learns, with PEFT, the model's own replies to requests
    that name oceans beside their subject, after the same requests without them. It is kept in the cache folder by the
    hash of the model's weights and of the recipe; a training that is killed goes on from its last checkpoint. Takes
    minutes for a small model on two cores. Raises PrerequisiteError without peft, UsageError for a model that cannot be
    trained or does not speak of oceans, OutputError.
    """
    return Sibling(model, recipe=recipe or LoraRecipe()).train(progress)
