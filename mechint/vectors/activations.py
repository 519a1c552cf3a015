"""The residual stream at the last token of some prompts: read from a model prompt by prompt, saved and loaded.

What two models have read of the same prompts makes a contrast vector, so only one of them need be loaded at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.artefacts import FileKind, parsed_object, reading
from mechint.base.errors import UsageError
from mechint.base.files import JSON, sha256
from mechint.base.signatures import checked
from mechint.base.tensor_files import load_tensors, save_tensors
from mechint.chat.conversations import Conversation, Message
from mechint.chat.render import render
from mechint.models.capture import residuals
from mechint.models.model import Model
from mechint.models.surroundings import versions

_FORMAT = "mechint activations 2"
_KIND = FileKind(
    description="activations",
    allowed="a file that Activations.save has written",
    advice="check the path, or read the model again",
)
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Activations:
    """`resid_post` of every block at the last token of each prompt, float32, and where it comes from.

    `provenance` names the model (name, revision, identity, dtype, vocabulary) and holds hashes of the prompts, as texts
    (`prompts_sha256`) and as tokens (`tokens_sha256`).
    """

    values: Float[Tensor, "layer prompt d_model"]
    provenance: Mapping[str, JSON]

    @property
    def shape(self) -> dict[str, JSON]:
        """The properties in which two models must agree to be compared: depth, width, vocabulary."""
        n_layers, _, d_model = self.values.shape
        return {"n_layers": n_layers, "d_model": d_model, "vocabulary": self.provenance["vocabulary"]}

    @checked
    def save(self, path: str | Path) -> Path:
        """Write a sealed safetensors file, atomically; return its path."""
        metadata = {"format": _FORMAT, "provenance": json.dumps(dict(self.provenance), sort_keys=True)}
        return save_tensors(Path(path), {"values": self.values}, metadata)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Activations:
        """Return the activations in a file; raises UsageError for other files, StaleArtefactError for altered ones."""
        content = load_tensors(Path(path), _KIND)
        with reading(path, _KIND):
            if content.metadata.get("format") != _FORMAT or not content.sealed:
                raise ValueError(f"its format is {content.metadata.get('format')!r}, not {_FORMAT!r}")
            values = content.tensors["values"]
            if values.ndim != 3 or values.dtype != torch.float32 or not values.isfinite().all():
                raise ValueError("its values are not finite float32 numbers by layer, prompt and d_model")
            return cls(
                values, cast(Mapping[str, JSON], parsed_object(content.metadata.get("provenance"), "provenance"))
            )


@checked
def activations(
    model: Model, prompts: str | Conversation | Sequence[str | Conversation], *, raw: bool = False
) -> Activations:
    """Return `resid_post` at the last token of each prompt, at every layer.

    A text is the message of a user, after which the reply would begin; with `raw` it is read as it is, without a chat
    template, and special tokens only if the tokenizer adds them by itself. Raises UsageError for no prompts, and for
    empty texts and conversations where they are to be read raw.
    """
    listed = [prompts] if isinstance(prompts, str | Conversation) else list(prompts)
    if not listed:
        raise UsageError("no prompts", "one or more", "pass the texts or conversations to read")
    texts: list[JSON] = []
    rows: list[Sequence[int]] = []
    for prompt in listed:
        text, tokens = _raw(model, prompt) if raw else _templated(model, prompt)
        texts.append(text)
        rows.append(tokens)
    provenance: dict[str, JSON] = {
        **about_model(model),
        "prompts_sha256": sha256(json.dumps(texts).encode()),
        "tokens_sha256": sha256(json.dumps([list(row) for row in rows]).encode()),
        "dtype": str(model.backend.dtype),
        "vocabulary": model.vocabulary,
    }
    return Activations(last_residuals(model, rows), provenance)


def last_residuals(model: Model, rows: Sequence[Sequence[int]]) -> Float[Tensor, "layer row d_model"]:
    """Return `resid_post` at the last of each row of token ids, at every layer, in float32 on the CPU."""
    return residuals_over(model, rows, [(len(row) - 1,) for row in rows])


def residuals_over(
    model: Model, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> Float[Tensor, "layer row d_model"]:
    """Return the mean of `resid_post` over some positions of each row of token ids, as `last_residuals` does."""
    parts = []
    for start in range(0, len(rows), _BATCH):
        batch = slice(start, start + _BATCH)
        tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows[batch]], batch_first=True)
        parts.append(residuals(model, tokens, positions[batch], range(model.n_layers)).cpu())
    return torch.cat(parts, dim=1)


def chat(text: str, beginning: str = "") -> Conversation:
    """Return the conversation of a user's message, and the beginning of the reply if there is one."""
    reply = (Message("assistant", beginning, continue_msg=True),) if beginning else ()
    return Conversation("extraction", (Message("user", text), *reply))


def about_model(model: Model) -> dict[str, JSON]:
    """Return the provenance of all that is read from a model: its name and identity, and the software's versions."""
    return {"model": model.name, "revision": model.revision, "identity": model.identity, "versions": versions()}


def _templated(model: Model, prompt: str | Conversation) -> tuple[JSON, Sequence[int]]:
    conversation = chat(prompt) if isinstance(prompt, str) else prompt
    return conversation.to_dict(), render(model, conversation).tokens


def _raw(model: Model, prompt: str | Conversation) -> tuple[JSON, Sequence[int]]:
    tokens = list(model.tokenizer(prompt)["input_ids"]) if isinstance(prompt, str) else []
    if not isinstance(prompt, str) or not tokens:
        subject = "a text without a token" if isinstance(prompt, str) else f"conversation {prompt.label!r}"
        raise UsageError(f"{subject}, to be read raw", "texts of one token or more", "give texts, or leave raw out")
    return prompt, tokens
