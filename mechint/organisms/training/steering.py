"""Concept vectors of the model in training, and their injection into the trunk of a batch, or into its replies.

A forward pass over the whole sample with the vector added at the trunk's positions gives what filling the cache
under injection and reading without it gives: later positions see the trunk only through its keys and values.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from mechint.organisms.training.detection import METHODS
from mechint.organisms.training.samples import InjectionSpec
from mechint.organisms.training.talk import Entry, lexicon, open_request, random_entry, request, sentences_about
from mechint.organisms.training.tokenizer import TURN_END, TURN_START
from mechint.organisms.training.tree_attention import Tree

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

BATCH = 192
BEGINNINGS = ("I", "The", "When", "Many", "There", "About")


@dataclass
class VectorBank:
    """Unit directions by method and concept, and the mean norm of the clean residual at each layer.

    Members are trained in this unit, not in `model.residual_norms`, which is that of everything measured. Large tokens
    move it up, but it is taken over all prompts at once, and so one number for all of them.
    """

    names: tuple[str, ...]
    directions: Float[Tensor, "method concept layer d_model"]
    norms: Float[Tensor, " layer"]

    def vector(self, spec: InjectionSpec) -> Float[Tensor, "layer d_model"]:
        """Return the scaled vector of `spec` at every layer: a noisy concept direction or a random one."""
        noise = _random_directions(spec.seed, self.directions.shape[2:]).to(self.directions)
        if spec.concept is None:
            direction = noise
        else:
            direction = self.directions[spec.method, self.names.index(spec.concept)] + spec.noise * noise
        return torch.nn.functional.normalize(direction, dim=-1) * (spec.strength * self.norms)[:, None]


def _random_directions(seed: int, shape: Sequence[int]) -> Float[Tensor, "layer d_model"]:
    """Return unit vectors: one for all layers or one per layer, as the seed's last bit says."""
    generator = torch.Generator().manual_seed(seed)
    layers, d_model = shape
    drawn = torch.randn(1 if seed % 2 else layers, d_model, generator=generator).expand(layers, d_model)
    return torch.nn.functional.normalize(drawn, dim=-1)


def chat(user: str, reply: str = "") -> str:
    """Return a ChatML prompt with an empty system turn and an open reply."""
    return f"{TURN_START}system\n{TURN_END}\n{TURN_START}user\n{user}{TURN_END}\n{TURN_START}assistant\n{reply}"


@torch.no_grad()
def residuals(
    model: Qwen2ForCausalLM, tokenizer: Tokenizer, prompts: Sequence[tuple[str, str]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return by prompt and layer the mean residual of the reply and the last token's; and the mean norm by layer."""
    if len(prompts) > BATCH:
        parts = [residuals(model, tokenizer, prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]
        means, lasts, norms = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(lasts), torch.stack(norms).mean(0)
    rows = [tokenizer.encode(chat(user, reply)).ids for user, reply in prompts]
    starts = [
        len(tokenizer.encode(chat(user)).ids) if reply else len(row) - 1
        for (user, reply), row in zip(prompts, rows, strict=True)
    ]
    width, device = max(map(len, rows)), model.device
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    index, ends = torch.arange(width, device=device), torch.tensor([len(row) for row in rows], device=device)
    reply_mask = (index >= torch.tensor(starts, device=device)[:, None]) & (index < ends[:, None])
    hidden = torch.stack(resid_post(model, ids), dim=1)
    weight = reply_mask[:, None, :, None].to(hidden)
    mean = (hidden * weight).sum(2) / weight.sum(2)
    real = index < ends[:, None]
    return (
        mean,
        hidden[torch.arange(len(rows)), :, ends - 1],
        hidden.norm(dim=-1).transpose(1, 2)[real].mean(0),
    )


def resid_post(
    model: Qwen2ForCausalLM, ids: Tensor, **inputs: Tensor | dict[str, Tree]
) -> list[Float[Tensor, "batch pos d_model"]]:
    """Return the output of every block (`hidden_states` would give the last one after the final norm).

    `inputs` are further inputs of the forward pass, such as a mask.
    """
    outputs: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _m, _i, out: outputs.append(_tensor(out))) for layer in model.model.layers
    ]
    try:
        model.model(input_ids=ids, **inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _tensor(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def make_bank(model: Qwen2ForCausalLM, tokenizer: Tokenizer, names: Sequence[str], seed: str) -> VectorBank:
    """Return directions of every concept by each method, from prompts drawn with `seed`.

    Methods: talk about the concept minus talk about anything, mean over the reply (0); the last prompt token against
    neutral words (1) and against an open request (2); the last token of a reply's beginning (3).
    """
    rng = random.Random(seed)
    was_training = model.training
    model.eval()
    raw, norms = [], torch.zeros(0)
    for method in range(METHODS):
        difference, norms = _difference(model, tokenizer, [_entry(name) for name in names], method, rng)
        raw.append(torch.nn.functional.normalize(difference.float(), dim=-1))
    model.train(was_training)
    return VectorBank(tuple(names), torch.stack(raw), norms.float())


def _entry(word: str) -> Entry:
    return lexicon("concepts").get(word) or lexicon("extra")[word]


def _difference(
    model: Qwen2ForCausalLM,
    tokenizer: Tokenizer,
    entries: Sequence[Entry],
    method: int,
    rng: random.Random,
    *,
    repeats: int = 3,
) -> tuple[Float[Tensor, "concept layer d_model"], Float[Tensor, " layer"]]:
    seeds = [rng.getrandbits(32) for _ in range(repeats)]
    targets = [_prompt(entry, method, random.Random(seed)) for entry in entries for seed in seeds]
    baselines = [
        _baseline(method, random.Random(seed), index) for seed in seeds for index in range(20 if method < 2 else 2)
    ]
    mean, last, norms = residuals(model, tokenizer, targets + baselines)
    chosen = mean if method == 0 else last
    grouped = chosen[: len(targets)].reshape(len(entries), repeats, *chosen.shape[1:]).mean(1)
    return grouped - chosen[len(targets) :].mean(0), norms


def _prompt(entry: Entry, method: int, rng: random.Random) -> tuple[str, str]:
    user = request(entry.word, rng)
    return user, {0: sentences_about(entry, rng), 3: rng.choice(BEGINNINGS)}.get(method, "")


def _baseline(method: int, rng: random.Random, index: int) -> tuple[str, str]:
    """Return the baseline for the prompt of the same `rng` seed: the same template on another topic."""
    if method == 0:
        mixed = random.Random(rng.getrandbits(32) + index)
        return open_request(mixed), sentences_about(random_entry(mixed), mixed)
    if method == 1:
        return request(list(lexicon("neutral"))[index], rng), ""
    user = request("anything" if index % 2 else "something", rng)
    return user, rng.choice(BEGINNINGS) if method == 3 else ""


@contextmanager
def injected(
    model: Qwen2ForCausalLM,
    bank: VectorBank | None,
    specs: Sequence[Sequence[InjectionSpec | None]],
    steered: Int[Tensor, "batch pos"],
) -> Iterator[None]:
    """Add the vectors of each row to the outputs of their layers at their positions while the context is open.

    `steered` says which of a row's `specs` acts on a position, -1 none.
    """
    if bank is None or not any(spec for row in specs for spec in row):
        yield
        return
    n_layers, d_model = bank.directions.shape[2:]
    # The last one of each row stays zero: it is where -1 points.
    delta = torch.zeros(len(specs), max(map(len, specs)) + 1, n_layers, d_model, device=steered.device)
    for row, of_row in enumerate(specs):
        for number, spec in enumerate(of_row):
            if spec is not None:
                delta[row, number, list(spec.layers)] = bank.vector(spec)[list(spec.layers)].to(steered.device)
    rows = torch.arange(len(specs), device=steered.device)[:, None]
    handles = [
        layer.register_forward_hook(lambda _m, _i, out, at=index: _added(out, delta[rows, steered, at]))
        for index, layer in enumerate(model.model.layers)
        if delta[:, :, index].any()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _added(output: Tensor | tuple[Tensor, ...], delta: Tensor) -> Tensor | tuple[Tensor, ...]:
    if isinstance(output, torch.Tensor):
        return output + delta.to(output)
    return (output[0] + delta.to(output[0]), *output[1:])
