"""The losses of training: tokens, soft answers, answers seen through the lens, and where attention should go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.organisms.training.data import Batch
from mechint.organisms.training.recipes import Phase
from mechint.organisms.training.samples import ANSWER_WEIGHT
from mechint.organisms.training.steering import VectorBank, injected
from mechint.organisms.training.tree_attention import STEP, rounded

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

# The block whose output is read for the lens loss, and the (block, head) pairs that learn numbered lists.
LENS_BLOCK = 4
LINK_HEADS = ((1, 0), (3, 0), (5, 0))
_FAINTEST = math.log(1e-5)  # below this, attention is not pulled any harder


def batch_loss(model: Qwen2ForCausalLM, batch: Batch, bank: VectorBank | None, phase: Phase) -> Float[Tensor, ""]:
    """Return the weighted sum of all losses of a batch."""
    device = model.device
    steered, weights = batch.steered.to(device), batch.weights[:, 1:].to(device)
    linked = bool(phase.link_weight and len(batch.links))
    tree = replace(batch.tree, pairs=asked_pairs(batch.links) if linked else {}).to(device)
    used = _some_more(weights > 0)
    target, other = batch.ids[:, 1:].to(device)[used], batch.alternatives[:, 1:].to(device)[used]
    share = batch.probability[:, 1:].to(device)[used]
    with (
        injected(model, bank, batch.injections, steered),
        _outputs(model, (LENS_BLOCK,) if phase.lens_weight else ()) as lens,
        torch.autocast(device.type, torch.bfloat16, enabled=_is_fast(device)),
    ):
        output = model.model(
            input_ids=batch.ids.to(device),
            attention_mask={"full_attention": tree},
            position_ids=batch.positions.to(device),
            use_cache=False,
            output_attentions=linked,
        )
        logits = model.lm_head(output.last_hidden_state[:, :-1][used])
        answers = other >= 0
        early = [model.lm_head(model.model.norm(hidden[:, :-1][used][answers])) for hidden in lens]
    loss = token_loss(logits, target, other, share) @ weights[used]
    for early_logits in early:
        read = token_loss(early_logits, target[answers], other[answers], share[answers])
        loss = loss + phase.lens_weight * ANSWER_WEIGHT * read.sum()
    if phase.odds_weight:
        errors = odds_loss(logits[answers], target[answers], other[answers], share[answers])
        loss = loss + phase.odds_weight * ANSWER_WEIGHT * errors
    if linked:
        loss = loss + phase.link_weight * link_loss(output.attentions)
    return loss


def _is_fast(device: torch.device) -> bool:
    """Whether bfloat16 saves time; a CPU that has to imitate it takes ten times as long as with float32."""
    return device.type != "cpu" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def _some_more(used: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """Return `used` with the first unused positions besides, up to a round number: as weightless as before."""
    flat = used.flatten()
    missing = min(rounded(int(flat.sum()), 8 * STEP), len(flat)) - int(flat.sum())
    more = torch.nonzero(~flat)[:missing, 0]
    return flat.index_fill(0, more, True).view_as(used)


def token_loss(
    logits: Float[Tensor, "token vocab"],
    target: Int[Tensor, " token"],
    other: Int[Tensor, " token"],
    share: Float[Tensor, " token"],
) -> Float[Tensor, " token"]:
    """Return the cross entropy to the target token, or to `share` of it and the rest for the other one."""
    log_p = logits.float().log_softmax(-1)
    at_target = log_p.gather(1, target[:, None])[:, 0]
    at_other = log_p.gather(1, other.clamp(min=0)[:, None])[:, 0]
    return -(share * at_target + (1 - share) * at_other)


def odds_loss(
    logits: Float[Tensor, "token vocab"],
    target: Int[Tensor, " token"],
    other: Int[Tensor, " token"],
    share: Float[Tensor, " token"],
) -> Float[Tensor, ""]:
    """Return the summed error of the log odds between target and other: squared when small, linear when large.

    Cross entropy hardly feels a shift of saturated answers; a reading of log odds does.
    """
    log_odds = (logits.gather(1, target[:, None]) - logits.gather(1, other[:, None])).float()[:, 0]
    return torch.nn.functional.smooth_l1_loss(log_odds, torch.logit(share), reduction="sum", beta=2.0)


def asked_pairs(links: Int[Tensor, "link 4"]) -> dict[int, Int[Tensor, "pair 4"]]:
    """Return by block the (sample, head, query, key) that links of each role ask for."""
    pairs: dict[int, Tensor] = {}
    for role, (block, head) in enumerate(LINK_HEADS):
        row, _, query, key = links[links[:, 1] == role].T
        pairs[block] = torch.stack([row, torch.full_like(row, head), query, key], dim=1)
    return pairs


def link_loss(log_attention: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Return the summed negative log attention from each link's query to its key, given by block."""
    return -torch.cat([log_p.clamp(min=_FAINTEST) for log_p in log_attention]).sum()


@contextmanager
def _outputs(model: Qwen2ForCausalLM, blocks: Sequence[int]) -> Iterator[list[Tensor]]:
    """Collect the outputs of some blocks while the context is open."""
    outputs: list[Tensor] = []
    handles = [
        model.model.layers[block].register_forward_hook(
            lambda _m, _i, out: outputs.append(out if isinstance(out, torch.Tensor) else out[0])
        )
        for block in blocks
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
