"""Train the organism's sparse autoencoders with SAE Lens; `python -m mechint.organisms.sae --help`.

Activations come from the conversations the organism was trained on, half of them with an injection in the first turn,
and at every position. Top-k SAEs (Gao et al., arXiv 2406.04093) of eight times the residual's width.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.attribution.features.training import QualityRow, SAERecipe, quality, train_sae
from mechint.base.errors import MechintError
from mechint.base.files import check_writable
from mechint.figures import sae_quality, save_all
from mechint.organisms import SAE_LAYERS, organism_path
from mechint.organisms.record import RECORD, read_record
from mechint.organisms.training.data import draw_batches
from mechint.organisms.training.detection import injectable
from mechint.organisms.training.recipes import STAGES
from mechint.organisms.training.steering import injected, make_bank, resid_post
from mechint.organisms.training.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from transformers import Qwen2ForCausalLM

QUALITY = "quality.json"


@dataclass(frozen=True)
class SAEConfig:
    """Size, training and data of an SAE."""

    training: SAERecipe
    data_steps: int = 60
    held_out_steps: int = 6


@torch.no_grad()
def activations(
    model: Qwen2ForCausalLM, directory: Path, layers: Sequence[int], name: str, steps: int
) -> dict[int, Float[Tensor, "token d_model"]]:
    """Return `resid_post` by layer at all tokens of `steps` training batches, drawn with the seed `name`."""
    tokenizer, phase = load_tokenizer(directory), STAGES["organism"].phases[-1]
    bank = make_bank(model, tokenizer, injectable(), name)
    residuals: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for step in range(steps):
        for batch in draw_batches(name, step, phase.mix, phase.batch, tokenizer):
            tree = {"full_attention": batch.tree}
            with injected(model, bank, batch.injections, batch.steered):
                residual = resid_post(model, batch.ids, attention_mask=tree, position_ids=batch.positions)
            for layer in layers:
                residuals[layer].append(residual[layer][batch.real])
    return {layer: torch.cat(parts) for layer, parts in residuals.items()}


def make(model_directory: Path, layer: int, out: Path, config: SAEConfig) -> QualityRow:
    """Train the SAE of one layer, write it in SAE Lens' format with its quality, and return that."""
    from transformers import AutoModelForCausalLM

    from mechint.organisms.training.tree_attention import register

    model: Qwen2ForCausalLM = AutoModelForCausalLM.from_pretrained(
        model_directory, dtype=torch.float32, attn_implementation=register()
    )
    name = f"{config.training.seed}/sae"
    residuals = activations(model, model_directory, [layer], name, config.data_steps)[layer]
    sae = train_sae(residuals, layer, config.training, "organism")
    held_out = activations(model, model_directory, [layer], f"{name}/held out", config.held_out_steps)[layer]
    measured = quality(sae, held_out)
    sae.save_inference_model(out)
    record = {
        "layer": layer,
        "model_sha256": read_record(model_directory)["sha256"],
        "config": asdict(config),
        **measured,
    }
    (out / QUALITY).write_text(json.dumps(record) + "\n", encoding="utf-8")
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mechint.organisms.sae", description=__doc__)
    parser.add_argument("--model", type=Path, default=organism_path("organism"), help="checkpoint directory")
    layers = list(SAE_LAYERS)
    parser.add_argument("--layers", type=int, nargs="+", default=layers, help="blocks whose output is encoded")
    parser.add_argument("--out", type=Path, default=Path("organism-build/saes"), help="directory to write the SAEs to")
    parser.add_argument("--figures", type=Path, default=Path("figures/saes"), help="directory of their figure")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    if not (options.model / RECORD).is_file():
        parser.error(f"--model {options.model}: no {RECORD} there; give a directory made by mechint.organisms.train")
    blocks = STAGES["organism"].blocks
    if not all(0 <= layer < blocks for layer in options.layers):
        parser.error(f"--layers {options.layers}: the model has layers 0 to {blocks - 1}")
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: give 1 or more")
    try:
        check_writable(options.out, "--out")
        check_writable(options.figures, "--figures")
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    torch.set_num_threads(options.threads)
    config = SAEConfig(SAERecipe(d_sae=1024, k=16, samples=3_000_000, seed=options.seed))
    qualities: dict[int, QualityRow] = {}
    for layer in options.layers:
        qualities[layer] = make(options.model, layer, options.out / f"resid_post.{layer}", config)
        sys.stdout.write(f"{_described(layer, qualities[layer])}\n")
    save_all({"sae_quality": figure(qualities)}, options.figures)
    return 0


def _described(layer: int, quality: QualityRow) -> str:
    return (
        f"layer {layer}: {quality['explained_variance']:.1%} of the variance explained with {quality['l0']:.1f} "
        f"features per token, {quality['dead']:.1%} of features never active"
    )


def figure(qualities: Mapping[int, QualityRow]) -> go.Figure:
    """Return the figure of reconstruction and sparsity of SAEs by layer."""
    names = {layer: f"blocks.{layer}.hook_resid_post" for layer in qualities}
    tokens = next(iter(qualities.values()))["tokens"]
    descriptions = "; ".join(_described(*item) for item in qualities.items())
    return sae_quality(
        {names[layer]: quality["error"] for layer, quality in qualities.items()},
        {names[layer]: quality["frequency"] for layer, quality in qualities.items()},
        title="How well do the organism's sparse autoencoders rebuild its residual stream, and how sparsely?",
        subtitle=f"{tokens:,} tokens not trained on. {descriptions}.",
    )


if __name__ == "__main__":
    sys.exit(main())
