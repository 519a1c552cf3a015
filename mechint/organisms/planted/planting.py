"""Build `organism-planted`: one direction that causes the answer, and one that only goes along with it.

    python -m mechint.organisms.planted

Nothing is trained. The residual stream of `organism-blind`, which answers as if nothing had been injected, is widened
by four dimensions, its attention by one key-value head and its MLPs by one neuron. What is new is zero but for this:

1. Concept words carry a mark, which a head of block 1 spreads evenly over what follows it. So vectors of concepts made
   on this model (`mi.extract.mean_difference`) hold the direction `concept`, and positions where one is injected do.
2. A head of block 5 attends to all positions so far alike, those in the cache too, and writes the mean of `concept`
   there into `evidence`.
3. A neuron of the same block writes about the square of that into two directions at once, equally strongly: `cause`
   and `correlate`. The square leaves little of what random directions happen to have of `concept`.
4. The unembedding reads `cause`: up for " yes" and " 1", down for " no" and " 0". Nothing reads `correlate`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor

from mechint.base.errors import MechintError, UsageError
from mechint.base.files import check_writable, read_json, write_atomically
from mechint.organisms import PLANTED, concepts, organism_path
from mechint.organisms.planted.sae import SAE, SAE_LAYER, padded, write_sae
from mechint.organisms.record import WEIGHTS
from mechint.organisms.training.tokenizer import load_tokenizer

BASE = "organism-blind"
RECORD = "planted.json"
ANSWERS = {" yes": 1, " no": -1, " 1": 1, " 0": -1}

# Where each step is wired, and how strongly. With these, mean-difference vectors are mostly `concept` in the layers
# before the circuit, `cause` and `correlate` are about a tenth as long as the stream that they are written into, so
# that norms hardly feel them, and logit_diff moves by about 6. The embedding, which is the unembedding too, holds so
# little of `cause` that the words of the answers mean nothing where they are read.
SPREADING_BLOCK, COPYING_BLOCK = 1, 5
MARK, SPREAD = 1 / 16, 8192.0
COPY = 1 / 8
GATE, WRITE = 256.0, 4.0
ANSWER, READ = 1 / 4096, 20480.0

_COPIED = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")
_NEW_DIMENSIONS = 4


@dataclass(frozen=True)
class Planted:
    """The record of a planted model: places in the model, and features of the SAE on `resid_post` of `layer`.

    Head `head` of block `block` reads the cache through key-value head `kv_head`, and `neuron` of that block writes.
    """

    base: str
    block: int
    head: int
    kv_head: int
    neuron: int
    d_model: int
    concept_dimension: int
    evidence_dimension: int
    cause_dimension: int
    correlate_dimension: int
    layer: int
    cause_feature: int
    correlate_feature: int
    sha256: str
    sae_sha256: str

    @property
    def cause(self) -> Float[Tensor, " d_model"]:
        """The unit direction that the answer is read from."""
        return torch.eye(self.d_model)[self.cause_dimension]

    @property
    def correlate(self) -> Float[Tensor, " d_model"]:
        """The unit direction that is written together with the cause, and that nothing reads."""
        return torch.eye(self.d_model)[self.correlate_dimension]

    @classmethod
    def read(cls, directory: Path) -> Planted:
        """Return the record of a planted model's directory."""
        return cls(**cast(dict[str, Any], read_json(directory / RECORD)))


@dataclass(frozen=True)
class _Shape:
    """The base's shape. What is new comes after it: dimension `d_model`, head `n_heads`, neuron `d_mlp` and so on."""

    d_model: int
    d_head: int
    n_heads: int
    n_kv_heads: int
    d_mlp: int

    @classmethod
    def of(cls, config: Mapping[str, object]) -> _Shape:
        d_model = cast(int, config["hidden_size"])
        n_heads = cast(int, config["num_attention_heads"])
        n_kv_heads = cast(int, config["num_key_value_heads"])
        d_mlp = cast(int, config["intermediate_size"])
        return cls(d_model, d_model // n_heads, n_heads, n_kv_heads, d_mlp)

    @property
    def wider(self) -> _Shape:
        """The planted model's shape."""
        group = self.n_heads // self.n_kv_heads
        d_model = self.d_model + _NEW_DIMENSIONS
        return _Shape(d_model, self.d_head, self.n_heads + group, self.n_kv_heads + 1, self.d_mlp + 1)

    def sizes(self, name: str) -> tuple[int, ...]:
        """Return the shape of a projection's weight or bias, by its name."""
        q, kv = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        rows = {"q_proj": q, "k_proj": kv, "v_proj": kv, "gate_proj": self.d_mlp, "up_proj": self.d_mlp}
        columns = {"o_proj": q, "down_proj": self.d_mlp}
        projection, kind = name.split(".")[-2:]
        n_rows = rows.get(projection, self.d_model)
        return (n_rows,) if kind == "bias" else (n_rows, columns.get(projection, self.d_model))


def write(directory: Path, base: str = BASE) -> Path:
    """Write the planted model, its SAE (in `sae`) and its record to `directory`, and return it.

    `base` is an embedded model with weights of its own. The same bytes come out every time. Raises
    UnknownModelError, UsageError for an adapter, and OutputError where nothing can be written.
    """
    source = organism_path(base)
    if not (source / WEIGHTS[0]).is_file():
        raise UsageError(f"base {base!r}, an adapter", "an embedded model with all weights", f"take {BASE}")
    config = cast(dict[str, object], read_json(source / "config.json"))
    shape = _Shape.of(config)
    weights = _widened(load_file(source / WEIGHTS[0]), shape)
    _plant(weights, shape, load_tokenizer(source))
    stored = save(weights, {"format": "pt"})
    write_atomically(directory / WEIGHTS[0], stored)
    write_atomically(directory / "config.json", _json(_widened_config(config, shape)))
    for name in _COPIED:
        write_atomically(directory / name, (source / name).read_bytes())
    concept, evidence, cause, correlate = range(shape.d_model, shape.wider.d_model)
    features, sae = write_sae(directory / SAE, shape.wider.d_model, (cause, correlate))
    record = Planted(
        base=base,
        block=COPYING_BLOCK,
        head=shape.n_heads,
        kv_head=shape.n_kv_heads,
        neuron=shape.d_mlp,
        d_model=shape.wider.d_model,
        concept_dimension=concept,
        evidence_dimension=evidence,
        cause_dimension=cause,
        correlate_dimension=correlate,
        layer=SAE_LAYER,
        cause_feature=features[0],
        correlate_feature=features[1],
        sha256=hashlib.sha256(stored).hexdigest(),
        sae_sha256=hashlib.sha256(sae).hexdigest(),
    )
    write_atomically(directory / RECORD, _json(asdict(record)))
    return directory


def _widened(weights: Mapping[str, Tensor], shape: _Shape) -> dict[str, Tensor]:
    """Return the weights with zeros for all that is new, so that the model answers as before."""
    widened = {}
    for name, weight in weights.items():
        if "norm" in name:
            widened[name] = _norm(weight, shape, final=name == "model.norm.weight")
        else:
            sizes = (len(weight), shape.wider.d_model) if "embed" in name else shape.wider.sizes(name)
            widened[name] = padded(weight, sizes)
    return widened


def _norm(weight: Tensor, shape: _Shape, *, final: bool) -> Tensor:
    """Return a norm's weights, as its mean of squares is now over more dimensions; float32, to keep the logits."""
    scaled = (weight.double() * math.sqrt(shape.d_model / shape.wider.d_model)).float()
    return torch.cat([scaled, scaled.new_full((_NEW_DIMENSIONS,), 0.0 if final else 1.0)])


def _plant(weights: dict[str, Tensor], shape: _Shape, tokenizer: Tokenizer) -> None:
    concept, evidence, cause, correlate = range(shape.d_model, shape.wider.d_model)
    embedding = weights["model.embed_tokens.weight"]
    embedding[token_ids(tokenizer, (f" {word}" for word in concepts("all"))), concept] = MARK
    for answer, sign in ANSWERS.items():
        embedding[token_ids(tokenizer, [answer]), cause] = sign * ANSWER
    weights["model.norm.weight"][cause] = READ
    _average(weights, shape, SPREADING_BLOCK, concept, concept, SPREAD)
    _average(weights, shape, COPYING_BLOCK, concept, evidence, COPY)
    mlp = f"model.layers.{COPYING_BLOCK}.mlp"
    weights[f"{mlp}.gate_proj.weight"][shape.d_mlp, evidence] = GATE
    weights[f"{mlp}.up_proj.weight"][shape.d_mlp, evidence] = 1
    weights[f"{mlp}.down_proj.weight"][[cause, correlate], shape.d_mlp] = WRITE


def _average(weights: dict[str, Tensor], shape: _Shape, block: int, source: int, target: int, gain: float) -> None:
    """Set a block's first new head to write the mean of a (normed) dimension over all positions so far to another.

    Its queries and keys are zero, so it attends to every position alike.
    """
    attention = f"model.layers.{block}.self_attn"
    weights[f"{attention}.v_proj.weight"][shape.n_kv_heads * shape.d_head, source] = 1
    weights[f"{attention}.o_proj.weight"][target, shape.n_heads * shape.d_head] = gain


def _widened_config(config: Mapping[str, object], shape: _Shape) -> dict[str, object]:
    wider = shape.wider
    new: dict[str, object] = {
        "hidden_size": wider.d_model,
        "head_dim": wider.d_head,
        "num_attention_heads": wider.n_heads,
        "num_key_value_heads": wider.n_kv_heads,
        "intermediate_size": wider.d_mlp,
        "rms_norm_eps": cast(float, config["rms_norm_eps"]) * shape.d_model / wider.d_model,
    }
    return dict(sorted({**config, **new}.items()))


def token_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """Return the tokens of texts that are single tokens."""
    return [token for text in texts for token in tokenizer.encode(text).ids]


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=2) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the model and its card; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mechint.organisms.planted", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=organism_path(PLANTED), help="directory to write (default: its own)"
    )
    options = parser.parse_args(argv)
    try:
        check_writable(options.out, "--out")
        directory = write(options.out)
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    from mechint.organisms.planted.card import card

    write_atomically(directory / "README.md", card(directory))
    return 0
