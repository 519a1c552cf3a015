"""Train the embedded model from scratch on generated text; `python -m mechint.organisms.train --help`.

Three phases: talk and facts; then also truthful reports on injections made during the first turn; last the same without
the weakest injections, which can hardly be told from nothing. Every step's
data come from the seed and the step's number, so a run that was killed resumes at its last checkpoint and ends with the
weights of a run that was not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import MechintError, StaleArtefactError
from mechint.files import check_writable
from mechint.organisms import concepts
from mechint.organisms.build import TrainConfig, build_model, make_tokenizer, save_model
from mechint.organisms.card import write_card
from mechint.organisms.data import Batch, draw_batches
from mechint.organisms.steering import VectorBank, injected, make_bank

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

CHECKPOINT = "checkpoint.pt"


def batch_loss(model: Qwen2ForCausalLM, batch: Batch, bank: VectorBank | None) -> Float[Tensor, ""]:
    """Return the weighted sum of token losses; an answer's loss is the cross entropy to its soft target."""
    device = model.device
    trunk, weights = batch.trunk.to(device), batch.weights[:, 1:].to(device)
    bias = torch.zeros(batch.mask.shape, device=device).masked_fill_(~batch.mask.to(device), -1e9)
    bf16 = torch.bfloat16
    with injected(model, bank, batch.injections, trunk), torch.autocast(device.type, bf16):
        hidden = model.model(
            input_ids=batch.ids.to(device),
            attention_mask=bias.to(bf16),
            position_ids=batch.positions.to(device),
            use_cache=False,
        ).last_hidden_state
        used = weights > 0
        logits = model.lm_head(hidden[:, :-1][used])
    log_p = logits.float().log_softmax(-1)
    target, other = batch.ids[:, 1:].to(device)[used], batch.alternatives[:, 1:].to(device)[used].clamp(min=0)
    share = batch.probability[:, 1:].to(device)[used]
    token_loss = -(share * log_p.gather(1, target[:, None])[:, 0] + (1 - share) * log_p.gather(1, other[:, None])[:, 0])
    loss: Tensor = (token_loss * weights[used]).sum()
    return loss


class Trainer:
    """A run: model, optimizer, tokenizer, concept vectors and the number of steps done."""

    def __init__(self, config: TrainConfig, device: str) -> None:
        self.config, self.device, self.done, self.tokens = config, device, 0, 0
        self.tokenizer = make_tokenizer(config)
        self.model = build_model(config).to(device)
        self.bank: VectorBank | None = None
        groups = [
            {"params": [p for p in self.model.parameters() if p.dim() == 2], "weight_decay": 0.05},
            {"params": [p for p in self.model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))

    def step(self) -> float:
        """Do one step and return its loss per unit of weight."""
        config, phase = self.config, self.config.phase(self.done)
        if phase and self.done % config.refresh == 0:
            self.bank = make_bank(self.model, self.tokenizer, concepts("trained"), f"{config.seed}/{self.done}")
        batches = draw_batches(config.seed, self.done, phase, config.batch, self.tokenizer)
        self.tokens += sum(batch.count for batch in batches)
        total = sum(float(batch.weights[:, 1:].sum()) for batch in batches)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(self.done)
        loss = 0.0
        for batch in batches:
            part = batch_loss(self.model, batch, self.bank) / total
            torch.autograd.backward(part)
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return loss

    def save(self, path: Path) -> None:
        """Write a checkpoint; a run killed while it writes keeps the one before."""
        bank = None if self.bank is None else vars(self.bank)
        state = {
            "config": asdict(self.config), "done": self.done, "tokens": self.tokens, "bank": bank,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint; raises StaleArtefactError if it belongs to another configuration."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["config"] != asdict(self.config):
            raise StaleArtefactError(
                given=f"{path} of {state['config']}",
                allowed=str(asdict(self.config)),
                advice="delete it or choose another --out",
            )
        self.done, self.tokens = state["done"], state["tokens"]
        self.bank = None if state["bank"] is None else VectorBank(**state["bank"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def train(
    config: TrainConfig, out: Path, device: str = "cpu", stop_after: int | None = None, progress: bool = True
) -> Trainer:
    """Train, or go on training, and write the checkpoint directory `out`; `stop_after` ends a run early."""
    from tqdm import tqdm

    trainer, checkpoint = Trainer(config, device), out / CHECKPOINT
    if checkpoint.exists():
        trainer.resume(checkpoint)
    with tqdm(total=config.steps, initial=trainer.done, disable=not progress, mininterval=5) as bar:
        while trainer.done < config.steps and trainer.done != stop_after:
            loss = trainer.step()
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", phase=config.phase(trainer.done - 1))
            if trainer.done % config.refresh == 0:
                trainer.save(checkpoint)
    if trainer.done == config.steps:
        save_model(trainer.model, trainer.tokenizer, out)
        checkpoint.unlink(missing_ok=True)
    return trainer


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the checked options of the command line; argparse exits with code 2."""
    parser = argparse.ArgumentParser(prog="python -m mechint.organisms.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("organism-build"), help="directory to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=TrainConfig.seed, help="seed of weights, data and vectors")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (one is fastest at this size)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(argv)
    if options.seed < 0 or not 1 <= options.threads <= 256:
        parser.error("--seed must be at least 0 and --threads from 1 to 256")
    if options.device.split(":")[0] not in ("cpu", "cuda"):
        parser.error(f"--device is {options.device!r}; allowed: cpu, cuda")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU was found; use --device cpu")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(argv)
    try:
        check_writable(options.out, "--out")
        torch.set_num_threads(options.threads)
        config = TrainConfig(seed=options.seed)
        trainer = train(config, options.out, options.device)
        write_card(options.out, asdict(config), trainer.tokens)
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from the last checkpoint\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
