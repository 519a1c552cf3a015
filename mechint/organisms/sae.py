"""Train the organism's sparse autoencoders with SAE Lens; `python -m mechint.organisms.sae --help`.

Activations come from the conversations the organism was trained on, half of them with an injection in the first turn,
and at every position. Top-k SAEs (Gao et al., arXiv 2406.04093) of eight times the residual's width.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import MechintError
from mechint.base.files import check_writable
from mechint.figures import sae_quality, save_all
from mechint.models.backends.versions import require_sae_lens
from mechint.organisms import SAE_LAYERS, organism_path
from mechint.organisms.record import RECORD, read_record
from mechint.organisms.training.data import draw_batches
from mechint.organisms.training.detection import injectable
from mechint.organisms.training.recipes import STAGES
from mechint.organisms.training.steering import injected, make_bank, resid_post
from mechint.organisms.training.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from sae_lens import TopKTrainingSAE
    from transformers import Qwen2ForCausalLM

QUALITY = "quality.json"


@dataclass(frozen=True)
class SAEConfig:
    """Size, training and data of an SAE."""

    d_sae: int = 1024
    k: int = 16
    samples: int = 3_000_000
    batch: int = 2048
    learning_rate: float = 1e-3
    data_steps: int = 60
    held_out_steps: int = 6
    seed: int = 0


class QualityRow(TypedDict):
    """Reconstruction and sparsity of an SAE on tokens that it was not trained on, see `quality`."""

    explained_variance: float
    l0: float
    dead: float
    tokens: int
    frequency: list[float]
    error: list[float]


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
            with injected(model, bank, batch.injections, batch.trunk):
                residual = resid_post(model, batch.ids, attention_mask=tree, position_ids=batch.positions)
            for layer in layers:
                residuals[layer].append(residual[layer][batch.real])
    return {layer: torch.cat(parts) for layer, parts in residuals.items()}


def batches(tokens: Float[Tensor, "token d_model"], size: int, seed: int) -> Iterator[Float[Tensor, "batch d_model"]]:
    """Yield shuffled batches without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(tokens), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            yield tokens[order[start : start + size]]


def train_sae(tokens: Float[Tensor, "token d_model"], layer: int, config: SAEConfig) -> TopKTrainingSAE:
    """Return an SAE of one layer's activations, trained by SAE Lens; the scale of its input is folded in."""
    require_sae_lens()
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(config.seed)
    shape = TopKTrainingSAEConfig(
        d_in=tokens.shape[1],
        d_sae=config.d_sae,
        k=config.k,
        normalize_activations="expected_average_only_in",
        metadata=SAEMetadata(
            model_name="organism",
            hook_name=f"blocks.{layer}.hook_resid_post",
            hook_layer=layer,
            prepend_bos=False,
            context_size=1024,
        ),
    )
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=config.samples,
            train_batch_size_samples=config.batch,
            lr=config.learning_rate,
            lr_end=config.learning_rate / 10,
            lr_scheduler_name="cosineannealing",
            lr_warm_up_steps=100,
            dead_feature_window=200,
            n_batches_for_norm_estimate=20,
        ),
        sae=TopKTrainingSAE(shape),
        data_provider=batches(tokens, config.batch, config.seed),
    )
    sae: TopKTrainingSAE = trainer.fit()
    return sae


@torch.no_grad()
def quality(sae: TopKTrainingSAE, tokens: Float[Tensor, "token d_model"]) -> QualityRow:
    """Return reconstruction and sparsity on tokens that training did not see.

    `explained_variance` is 1 - |x - x'|^2 / |x - mean|^2 over all tokens; `l0` features are active per token; `dead` is
    the share of features that never are; `frequency` holds each feature's share of tokens, `error` the relative
    error |x - x'| / |x| of a thousand tokens.
    """
    features = sae.encode(tokens)
    rebuilt = sae.decode(features)
    missed, spread = (tokens - rebuilt).pow(2).sum(), (tokens - tokens.mean(0)).pow(2).sum()
    frequency = (features > 0).float().mean(0)
    error = (tokens - rebuilt).norm(dim=1) / tokens.norm(dim=1)
    return {
        "explained_variance": float(1 - missed / spread),
        "l0": float((features > 0).float().sum(1).mean()),
        "dead": float((frequency == 0).float().mean()),
        "tokens": len(tokens),
        "frequency": [round(value, 6) for value in frequency.tolist()],
        "error": [round(value, 4) for value in error[:: max(1, len(error) // 1000)].tolist()],
    }


def make(model_directory: Path, layer: int, out: Path, config: SAEConfig) -> QualityRow:
    """Train the SAE of one layer, write it in SAE Lens' format with its quality, and return that."""
    from transformers import AutoModelForCausalLM

    from mechint.organisms.training.tree_attention import register

    model: Qwen2ForCausalLM = AutoModelForCausalLM.from_pretrained(
        model_directory, dtype=torch.float32, attn_implementation=register()
    )
    name = f"{config.seed}/sae"
    sae = train_sae(activations(model, model_directory, [layer], name, config.data_steps)[layer], layer, config)
    held_out = activations(model, model_directory, [layer], f"{name}/held out", config.held_out_steps)[layer]
    measured = quality(sae, held_out)
    sae.save_inference_model(out)
    record = {
        "layer": layer,
        "model_sha256": read_record(model_directory)["sha256"],
        "config": vars(config),
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
    qualities: dict[int, QualityRow] = {}
    for layer in options.layers:
        qualities[layer] = make(options.model, layer, options.out / f"resid_post.{layer}", SAEConfig(seed=options.seed))
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
