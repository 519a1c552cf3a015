"""Plain transformers probing of an organism: a prompt set's conversations, concept vectors, injected answers.

Independent of the library's own engine: one forward pass with a position mask stands for fill and read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor

from mechint.organisms.samples import Piece, turn
from mechint.organisms.steering import resid_post, residuals
from mechint.organisms.tokenizer import TURN_START, load_tokenizer

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

PROMPT_SETS = Path(__file__).resolve().parent.parent / "prompt_sets"


class Extraction(TypedDict):
    """Wording that concept vectors are computed from."""

    concept: list[str]
    baseline: list[str]
    baseline_words: list[str]
    beginnings: list[str]


class Design(TypedDict):
    """The content of a prompt set's file."""

    name: str
    system: str
    descriptions: dict[str, dict[str, str]]
    infos: dict[str, str]
    formats: dict[str, dict[str, str]]
    controls: dict[str, list[str]]
    extraction: Extraction


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation: the first turn, the rest up to the answer, and the two answers."""

    fill: str
    rest: str
    yes: str
    no: str


def prompt_set(name: str = "small") -> Design:
    """Return the design of a prompt set."""
    return cast(Design, json.loads((PROMPT_SETS / f"{name}.json").read_text(encoding="utf-8")))


def _text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def render(design: Design, description: str, info: str, answer_format: str, question: str | None = None) -> Prompt:
    """Return a prompt of the set; `question` replaces the description's own question (a control)."""
    words, form = design["descriptions"][description], design["formats"][answer_format]
    first = "\n\n".join(part for part in (design["infos"][info], words["setup"]) if part)
    fill = turn("system", design["system"]) + turn("user", first) + turn("assistant", words["reply"])
    asked = f"{question or words['question']} {form['instruction']}"
    rest = _text(turn("user", asked)) + f"{TURN_START}assistant\n{form['prefix']}"
    return Prompt(_text(fill), rest, form["yes_token"], form["no_token"])


class Probe:
    """A loaded organism in float32, with its tokenizer."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForCausalLM

        loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
        self.model: Qwen2ForCausalLM = loaded.eval()
        self.tokenizer: Tokenizer = load_tokenizer(directory)
        self.n_layers: int = loaded.config.num_hidden_layers

    def vectors(self, words: Sequence[str], method: str = "mean") -> Float[Tensor, "concept layer d_model"]:
        """Return unit directions from the prompt set's extraction part.

        `mean`: last prompt token, concept against the mean of the baseline words. `anything`: the same against the
        baseline messages. `paired`: mean over the beginnings of the reply, last token, against the baseline messages.
        """
        design = prompt_set()["extraction"]
        beginnings = design["beginnings"] if method == "paired" else [""]
        baseline = self._last(design["baseline"], beginnings)
        if method == "mean":
            baseline = torch.stack(
                [self._last(_filled(design["concept"], word), beginnings) for word in design["baseline_words"]]
            ).mean(0)
        raw = torch.stack([self._last(_filled(design["concept"], word), beginnings) for word in words]) - baseline
        return torch.nn.functional.normalize(raw, dim=-1)

    def _last(self, messages: Sequence[str], beginnings: Sequence[str]) -> Float[Tensor, "layer d_model"]:
        prompts = [(message, beginning) for message in messages for beginning in beginnings]
        return residuals(self.model, self.tokenizer, prompts)[1].mean(0)

    def norms(self, prompt: Prompt) -> Float[Tensor, " layer"]:
        """Return the mean norm of the clean residual over the fill, by layer."""
        ids = torch.tensor([self.tokenizer.encode(prompt.fill).ids])
        with torch.no_grad():
            residual: Tensor = torch.stack(resid_post(self.model, ids))
        norms: Tensor = torch.linalg.vector_norm(residual, dim=-1)
        return norms.mean(dim=(1, 2))

    @torch.no_grad()
    def answers(
        self,
        prompt: Prompt,
        directions: Float[Tensor, "row layer d_model"],
        layers: Sequence[int],
        strength: float,
    ) -> Float[Tensor, "row 2"]:
        """Return P(yes) and P(no) by direction; `strength` is relative to the clean residual's mean norm.

        A zero direction is the clean run; `layers` may be empty.
        """
        fill, rest = self.tokenizer.encode(prompt.fill).ids, self.tokenizer.encode(prompt.rest).ids
        ids = torch.tensor([fill + rest]).expand(len(directions), -1)
        added = directions * (strength * self.norms(prompt))[:, None]
        with _adding(self.model, added, layers, len(fill)):
            hidden = self.model.model(ids, use_cache=False).last_hidden_state[:, -1]
        columns = [self.tokenizer.encode(text).ids[0] for text in (prompt.yes, prompt.no)]
        probabilities: Tensor = self.model.lm_head(hidden).softmax(-1)
        return probabilities[:, columns]


def _filled(messages: Sequence[str], word: str) -> list[str]:
    return [message.replace("{concept}", word) for message in messages]


@contextmanager
def _adding(model: Qwen2ForCausalLM, added: Tensor, layers: Sequence[int], stop: int) -> Iterator[None]:
    """Add `added[:, layer]` to the first `stop` positions of the output of each of `layers`."""

    def hook(layer: int) -> Callable[[object, object, Tensor], Tensor]:
        def add(_module: object, _inputs: object, output: Tensor) -> Tensor:
            steered = output[:, :stop] + added[:, layer, None]
            return torch.cat([steered, output[:, stop:]], dim=1)

        return add

    handles = [model.model.layers[layer].register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
