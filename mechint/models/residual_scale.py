"""How large the residual stream of a model typically is at each layer: the unit of relative strengths.

Many models park a huge norm on a few tokens, the first above all. A mean over a conversation is then the norm of its
first token divided by its length, another unit for each prompt. Here the unit is a median over the tokens of one fixed
text, which such tokens cannot move, so that a dose is the same in every conversation of a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mechint.base.errors import ModelValidationError, StaleArtefactError
from mechint.base.files import JSON, sha256
from mechint.models.model import Model

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from mechint.models.backends.base import Hook

_TEXT = Path(__file__).with_suffix(".txt")
# Tokens read at once: about a paragraph, and no more than the smallest models have positions for.
_LONGEST = 64
# Changes with the way of measuring, so that numbers of another way are not taken for those of this one.
_ROUNDING = 0.01  # by which norms may differ that machines have measured of the same weights
_METHOD = b"median over tokens of the norm of the clean resid_post, 1"


def residual_norms(model: Model) -> tuple[float, ...]:
    """Return the median over the fixed text's tokens of the Euclidean norm of the clean `resid_post`, by layer.

    Its paragraphs are read apart, as the tokenizer writes them by itself (with its BOS, if it adds one); those of one
    length in one pass. Raises ModelValidationError where a median is zero or no finite number.
    """
    norms: list[list[Tensor]] = [[] for _ in range(model.n_layers)]

    def keep(layer: int) -> Hook:
        def hook_fn(activation: Tensor, /, *, hook: HookPoint) -> None:
            norms[layer].append(torch.linalg.vector_norm(activation, dim=-1, dtype=torch.float32).flatten().cpu())

        return model.resid_post(layer), hook_fn

    hooks = [keep(layer) for layer in range(model.n_layers)]
    for _, pieces in groupby(sorted(_pieces(model), key=len), key=len):
        model.forward(torch.tensor([*pieces]), hooks=hooks)
    medians = tuple(float(np.median(torch.cat(of_layer).numpy())) for of_layer in norms)
    _check(model, medians)
    return medians


def unit_key(model: Model) -> str:
    """Hash of the unit's inputs besides the weights: the way of measuring, and the text as tokens.

    The norms themselves are no part of it: their last digits differ between machines whose tables are put together.
    """
    return sha256(_METHOD, repr(_pieces(model)).encode())


def typical_norms(model: Model) -> tuple[float, ...] | None:
    """Return `model.residual_norms`; None for a model that has no such unit, for which strengths cannot be relative."""
    try:
        return model.residual_norms
    except ModelValidationError:
        return None


def unit_record(model: Model) -> dict[str, JSON]:
    """Return a model's unit of strengths as JSON data: its norms by layer, and the key of how it was measured."""
    norms = typical_norms(model)
    return {"what": _METHOD.decode(), "key": unit_key(model), "norms": None if norms is None else list(norms)}


def check_same_unit(first: Mapping[str, JSON], second: Mapping[str, JSON], where: str) -> None:
    """Raise StaleArtefactError unless two records are of one unit: measured alike, and the same but for rounding."""
    norms, others = first.get("norms"), second.get("norms")
    if first.get("key") != second.get("key") or not _alike(norms, others):
        raise StaleArtefactError(
            given=f"{where}: doses in units of {_in_short(norms)} and of {_in_short(others)}",
            allowed="one unit in all rows of a table: equal weights, measured in the same way",
            advice="compute the parts again with the same model, dtype and version",
        )


def _alike(norms: JSON, others: JSON) -> bool:
    """Whether two records of norms by layer agree but for rounding; a model without a unit has None."""
    if not isinstance(norms, list) or not isinstance(others, list):
        return norms == others
    if len(norms) != len(others):
        return False
    return bool(np.allclose(np.array(norms, float), np.array(others, float), rtol=_ROUNDING, atol=0.0))


@cache
def _text() -> str:
    return _TEXT.read_text(encoding="utf-8")


def _in_short(norms: JSON) -> str:
    if not isinstance(norms, list):
        return "no unit"
    return f"norms {', '.join(f'{float(str(norm)):.4g}' for norm in norms[:4])}{', ...' if len(norms) > 4 else ''}"


def _pieces(model: Model) -> list[list[int]]:
    """Return the token ids of each paragraph, cut where it is longer than a model may have positions for."""
    length = min(_LONGEST, _LONGEST if model.backend.context.n_pos is None else model.backend.context.n_pos)
    paragraphs = [[int(token) for token in model.tokenizer(text)["input_ids"]] for text in _text().split("\n\n")]
    return [ids[start : start + length] for ids in paragraphs for start in range(0, len(ids), length)]


def _check(model: Model, medians: tuple[float, ...]) -> None:
    wrong = {layer: norm for layer, norm in enumerate(medians) if not (np.isfinite(norm) and norm > 0)}
    if wrong or not medians:
        raise ModelValidationError(
            given=f"{model.name}: typical norms of the residual stream by layer {wrong}",
            allowed="a finite number above zero at every layer, as the unit of relative strengths",
            advice="load the model in float32, or give strength= instead of relative_strength=",
        )
