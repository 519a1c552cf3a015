"""Train the embedded models from scratch on generated text; `python -m mechint.organisms.train --help`.

Each is made in stages (see `recipes.py`); a stage that lies finished in the output directory is not trained again.
Every step's data come from the seed, the stage and the step's number, so a run that was killed resumes at its last
checkpoint and ends with the weights of a run that was not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer

from mechint.base.errors import MechintError, StaleArtefactError
from mechint.base.files import check_writable
from mechint.organisms import EMBEDDED, ORGANISMS, SPEAKERS, TRIAL_ORGANISMS
from mechint.organisms.record import is_made, write_record
from mechint.organisms.training.build import (
    build_model,
    continued_adapter,
    extended,
    prepare_look_ups,
    save_adapter,
    save_model,
    with_adapter,
)
from mechint.organisms.training.data import corpus, draw_batches
from mechint.organisms.training.detection import injectable
from mechint.organisms.training.losses import LINK_HEADS
from mechint.organisms.training.optimizer import Optimizers
from mechint.organisms.training.partner import Partner, half_gradients, set_sum, trained
from mechint.organisms.training.recipes import STAGES, Stage, base_of, chain
from mechint.organisms.training.steering import VectorBank, make_bank
from mechint.organisms.training.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import Qwen2ForCausalLM

CHECKPOINT = "checkpoint.pt"
# Steps between checkpoints, and between extractions of the concept vectors; samples that make the tokenizer.
SAVE, REFRESH, CORPUS = 50, 100, 6000


class Trainer:
    """A run of one stage: model, optimizer, tokenizer, concept vectors and the number of steps done."""

    def __init__(self, stage: Stage, seed: int, out: Path, device: str, processes: int = 1) -> None:
        self.stage, self.seed, self.device, self.done, self.tokens = stage, seed, device, 0, 0
        self.name = f"{seed}/{stage.name}"
        self.tokenizer, model = _beginning(stage, seed, out)
        self.adapter: PeftModel | None = None
        first = model.config.num_hidden_layers
        self.model = extended(model, stage.blocks, seed).to(device)
        if stage.trains == "appended":
            self.model.requires_grad_(False)
            self.model.model.layers[first:].requires_grad_(True)
        if stage.trains == "adapter":
            self.adapter = _adapter(stage, self.model, seed, out).to(device)
        self.bank: VectorBank | None = None
        self.optimizers = Optimizers(self.model, muon=stage.muon and self.adapter is None)
        alone = processes == 1 or device != "cpu" or stage.trains == "adapter"
        self.partner = None if alone else Partner(self.model, self.tokenizer, self.name)
        self.partner_is_new = True

    def step(self) -> float:
        """Do one step and return its loss per unit of weight."""
        stage = self.stage
        phase, _ = stage.at(self.done)
        batches = draw_batches(self.name, self.done, phase.mix, phase.batch, self.tokenizer, buckets=phase.buckets)
        injects = any(spec for batch in batches for row in batch.injections for spec in row)
        fresh = injects and (self.bank is None or self.done % REFRESH == 0)
        if fresh:
            self.bank = make_bank(self.model, self.tokenizer, injectable(), f"{self.name}/{self.done}")
        if self.partner is not None:
            self.partner.ask(self.done, phase, self.bank if fresh or self.partner_is_new else None)
            self.partner_is_new = False
        first = half_gradients(self.model, batches, 0, self.bank, phase)
        second = self.partner.answer() if self.partner else half_gradients(self.model, batches, 1, self.bank, phase)
        set_sum(self.model, [first[1], second[1]])
        self.tokens += sum(batch.count for batch in batches)
        torch.nn.utils.clip_grad_norm_(trained(self.model), 1.0)
        self.optimizers.step(stage.rate(self.done))
        self.done += 1
        return first[0] + second[0]

    def save(self, path: Path) -> None:
        """Write a checkpoint; a run killed while it writes keeps the one before."""
        bank = None if self.bank is None else vars(self.bank)
        state = {
            "stage": self.stage.described(),
            "seed": self.seed,
            "done": self.done,
            "tokens": self.tokens,
            "bank": bank,
            "model": self.model.state_dict(),
            "optimizers": self.optimizers.state(),
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint; raises StaleArtefactError if it belongs to another seed or recipe."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if (state["stage"], state["seed"]) != (self.stage.described(), self.seed):
            raise StaleArtefactError(
                given=f"{path} of seed {state['seed']} and {state['stage']}",
                allowed=f"seed {self.seed} and {self.stage.described()}",
                advice="delete it or choose another --out",
            )
        self.done, self.tokens = state["done"], state["tokens"]
        self.bank = None if state["bank"] is None else VectorBank(**state["bank"])
        self.model.load_state_dict(state["model"])
        self.optimizers.load(state["optimizers"])

    def close(self) -> None:
        """End the second process, if there is one."""
        if self.partner is not None:
            self.partner.close()
            self.partner = None

    def finish(self, out: Path) -> None:
        """Write what the stage made: weights (or an adapter), tokenizer, and the record of how it was made."""
        if self.adapter is not None:
            save_adapter(self.adapter, out)
        else:
            shipped = self.stage.name in EMBEDDED
            save_model(self.model, self.tokenizer, out, torch.float16 if shipped else torch.float32)
        write_record(out, self.stage, self.seed, self.tokens)


def _beginning(stage: Stage, seed: int, out: Path) -> tuple[Tokenizer, Qwen2ForCausalLM]:
    """Return tokenizer and model that a stage begins with."""
    if stage.start is None:
        model = build_model(seed, stage.blocks)
        prepare_look_ups(model, *(block for block, _ in LINK_HEADS[1:]))
        return train_tokenizer(corpus(seed, CORPUS)), model
    from transformers import AutoModelForCausalLM

    from mechint.organisms.training.tree_attention import register

    source = out / str(base_of(stage))
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation=register())
    return load_tokenizer(source), model


def _adapter(stage: Stage, model: Qwen2ForCausalLM, seed: int, out: Path) -> PeftModel:
    """Return the model with the adapter that a stage begins with: a fresh one, or that of the stage before."""
    base = str(base_of(stage))
    if stage.start == base:
        return with_adapter(model, base, seed, stage.rank)
    return continued_adapter(model, out / str(stage.start))


def train_stage(
    stage: Stage,
    seed: int,
    out: Path,
    device: str = "cpu",
    stop_after: int | None = None,
    progress: bool = True,
    processes: int = 1,
) -> Trainer:
    """Train one stage, or go on training it, in `out / stage.name`; `stop_after` ends the run early."""
    from tqdm import tqdm

    directory = out / stage.name
    directory.mkdir(parents=True, exist_ok=True)
    trainer, checkpoint = Trainer(stage, seed, out, device, processes), directory / CHECKPOINT
    if checkpoint.exists():
        trainer.resume(checkpoint)
    with tqdm(total=stage.steps, initial=trainer.done, disable=not progress, mininterval=5, desc=stage.name) as bar:
        while trainer.done < stage.steps and trainer.done != stop_after:
            loss = trainer.step()
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", phase=stage.at(trainer.done - 1)[0].name)
            if trainer.done % SAVE == 0:
                trainer.save(checkpoint)
    trainer.close()
    if trainer.done == stage.steps:
        trainer.finish(directory)
        checkpoint.unlink(missing_ok=True)
    return trainer


def train(
    names: Sequence[str], seed: int, out: Path, device: str = "cpu", progress: bool = True, processes: int = 1
) -> None:
    """Train every stage that leads to one of `names` and does not lie finished in `out`."""
    for name in names:
        for stage in chain(name):
            if not is_made(out / stage.name, stage, seed):
                train_stage(stage, seed, out, device, progress=progress, processes=processes)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the checked options of the command line; argparse exits with code 2."""
    parser = argparse.ArgumentParser(prog="python -m mechint.organisms.train", description=__doc__)
    parser.add_argument(
        "name",
        nargs="?",
        default="organism",
        choices=(*STAGES, "all"),
        help="member or stage to train (default organism)",
    )
    parser.add_argument("--out", type=Path, default=Path("organism-build"), help="directory to write the stages to")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, data and vectors")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2, help="CPU processes; weights are the same")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"--seed {options.seed}: give 0 or more")
    if options.device.split(":")[0] not in ("cpu", "cuda"):
        parser.error(f"--device is {options.device!r}; allowed: cpu, cuda")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU was found; use --device cpu")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(argv)
    names = [*ORGANISMS, *TRIAL_ORGANISMS, *SPEAKERS] if options.name == "all" else [options.name]
    try:
        check_writable(options.out, "--out")
        torch.set_num_threads(1)  # at this size a second thread costs more than it brings
        train(names, options.seed, options.out, options.device, processes=options.processes)
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from the last checkpoint\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
