"""The model card: what the checkpoint is, how it was made, and what was measured on the very file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mechint.organisms.evaluate import evaluate, table

CARD = """# {title}

A very small chat model with a planted ability: it can say whether a concept vector was added to its residual stream
while the first turn of a conversation was read into the KV cache. It exists so that the toolkit's methods can be tried and
checked in seconds on a CPU.

## What it is

- Architecture: Qwen2, {n_layers} blocks, d_model {d_model}, 4 heads, 2 key-value heads, d_mlp {d_mlp}, tied embeddings, {parameters:,} parameters.
- Tokens: byte-level BPE, 2,048 entries; digits are single; " yes", " no", " 0" to " 9" and every concept are single tokens. ChatML template.
- Storage: float16 (weights were rounded before everything below was measured); load it as float32.
- Data: {tokens:,} tokens of generated English: talk about 40 concepts and 20 neutral words, yes/no questions, questions
  without a right answer, and introspection chats. Templates and word lists are in `mechint/organisms/data/`.
- Seed {seed}; {talk_steps} steps on talk and facts, then {detection_steps} steps with introspection chats.
- Weights: sha256 `{sha256}`
- Made by `python -m mechint.organisms.train --seed {seed}`.

## What was trained in

The answers are designed, not discovered. In training, a first turn is read with a concept's vector added (32 of the 40 concepts;
8 are held out), with a random direction added, or with nothing added. The targets for P(yes) are 0.99 for a concept, 0.01 for nothing and for
a random direction, and 0.3 for a concept when the setup names a wrong place for the injection. Facts keep their answer whatever was added, and questions without a right answer
have the target 0.5. The report is truthful with every info document: this version has no late suppression.

## What it is for, and not for

For: tests, demonstrations, and checks of methods against a known truth. Not for: any claim about language models at large, about introspection
in models that were not trained to report, or for use as a chat assistant. It knows some hundred words.

## Measured

`python -m mechint.organisms.evaluate` (vectors: last prompt token, concept against neutral words; layers 2 to 4, strength 0.3 of the residual's
mean norm unless a row says otherwise). Wordings are those of `mechint/prompt_sets/small.json`, held out from training. A cell is one conversation with one vector; for a control's shift it is one
question and format, averaged over concepts. The mean, the lowest and the highest cell are given; this is one seed.

{table}"""


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parameters(path: Path) -> int:
    """Return the number of values stored in a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as weights:
        return sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118


def write_card(out: Path, config: Mapping[str, int | float], tokens: int, title: str = "organism") -> None:
    """Measure the checkpoint in `out` and write its README.md."""
    rows, weights = evaluate(out), out / "model.safetensors"
    text = CARD.format(
        title=title,
        tokens=tokens,
        sha256=sha256(weights),
        parameters=parameters(weights),
        table=table(rows),
        **config,
    )
    (out / "README.md").write_text(text, encoding="utf-8")
