"""Training of a sparse autoencoder with SAE Lens on residuals, and how well it rebuilds others.

Top-k SAEs (Gao et al., arXiv 2406.04093). Which residuals these are is told in `trained`, and for the embedded models
in `mechint.organisms.sae`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.signatures import Count, Seed, checked
from mechint.models.backends.versions import require_sae_lens

if TYPE_CHECKING:
    from sae_lens import TopKTrainingSAE

# Features per dimension of the stream, at most; and features for each that is active.
_WIDTHS, _PER_ACTIVE = 4, 64
_FEWEST_ACTIVE, _MOST_ACTIVE = 4, 64


@checked
@dataclass(frozen=True)
class SAERecipe:
    """Size and training of an SAE: `samples` residuals are drawn, each token as often as it takes.

    Features that have been active in none of the last `dead_window` batches are given what the others miss.
    """

    d_sae: Count
    k: Count
    samples: Count = 600_000
    batch: Count = 2048
    learning_rate: float = 1e-3
    warm_up: Count = 100
    dead_window: Count = 200
    seed: Seed = 0

    @classmethod
    def of_width(cls, d_model: int) -> SAERecipe:
        """Return the usual one: a power of two up to four features a dimension, one in 64 of them active.

        That is 2,048 features, 32 of them active, for a stream of 576.
        """
        d_sae = 1 << ((_WIDTHS * d_model).bit_length() - 1)
        k = max(_FEWEST_ACTIVE, min(_MOST_ACTIVE, d_sae // _PER_ACTIVE))
        return cls(d_sae, k, batch=1024, warm_up=50, dead_window=30)


class QualityRow(TypedDict):
    """Reconstruction and sparsity of an SAE on tokens that it was not trained on, see `quality`."""

    explained_variance: float
    l0: float
    dead: float
    tokens: int
    frequency: list[float]
    error: list[float]


def batches(tokens: Float[Tensor, "token d_model"], size: int, seed: int) -> Iterator[Float[Tensor, "batch d_model"]]:
    """Yield shuffled batches without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(tokens), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            yield tokens[order[start : start + size]]


def train_sae(
    tokens: Float[Tensor, "token d_model"], layer: int, recipe: SAERecipe, model_name: str
) -> TopKTrainingSAE:
    """Return an SAE of one layer's residuals, trained by SAE Lens; the scale of its input is folded in.

    Raises PrerequisiteError without SAE Lens.
    """
    require_sae_lens()
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(recipe.seed)
    shape = TopKTrainingSAEConfig(
        d_in=tokens.shape[1],
        d_sae=recipe.d_sae,
        k=recipe.k,
        device=str(tokens.device),
        normalize_activations="expected_average_only_in",
        metadata=SAEMetadata(
            model_name=model_name,
            hook_name=f"blocks.{layer}.hook_resid_post",
            hook_layer=layer,
            prepend_bos=False,
            context_size=1024,
        ),
    )
    batch = min(recipe.batch, len(tokens))
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=recipe.samples,
            train_batch_size_samples=batch,
            lr=recipe.learning_rate,
            lr_end=recipe.learning_rate / 10,
            lr_scheduler_name="cosineannealing",
            lr_warm_up_steps=recipe.warm_up,
            dead_feature_window=recipe.dead_window,
            n_batches_for_norm_estimate=20,
            device=str(tokens.device),
        ),
        sae=TopKTrainingSAE(shape),
        data_provider=batches(tokens, batch, recipe.seed),
    )
    with redirect_stderr(io.StringIO()):  # SAE Lens draws bars whether or not anybody watches
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
