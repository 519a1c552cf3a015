"""Training an adapter: examples per second beside a plain loop of transformers and PEFT, two processes against one, and
how well a recipe that is trained on an embedded model tells directions that it was never trained on.

The plain loop gets its batches as tokens that were made before it; ours draws and renders them as it goes.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

import mechint as mi
from benchmarks.common import Timer, command, plain_model
from mechint.base.files import JSON
from mechint.engine.job import Request
from mechint.finetune.answer_batch import AnswerBatch, Prompts
from mechint.finetune.examples import TextExample
from mechint.finetune.injections import fixed_dose, injection_of
from mechint.finetune.lora import with_lora
from mechint.finetune.recipe_steps import RecipeSteps
from mechint.interventions.addition import Term
from mechint.organisms import organism_path
from mechint.readouts.tables import tables
from mechint.stats.signal_detection import auc

MODEL, RECIPE = "organism-blind", "published/original"
ROUNDS = 5
EXAMPLES = 192  # of those whose directions were never trained


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return speeds over rounds of `sample` steps, the largest difference of two processes, and areas of a run."""
    model = mi.load(MODEL)
    recipe = mi.finetune.Recipe.load(RECIPE).for_model(model.name, model.n_layers, model.prompts)
    speeds = speed(model, recipe, sample)
    difference = two_processes(model, recipe, folder)
    with Timer() as timer:
        run = mi.finetune.train(model, recipe, 0, folder / "whole", watch=False)
    areas = {held: area(model, run, held.split(", ")) for held in ("vectors", "vectors, openers, replies, wordings")}
    results: dict[str, JSON] = {
        **speeds,
        "two_processes": difference,
        "seconds": timer.seconds,
        "steps": run.record.steps,
        "areas": {**areas},
    }
    summary = [
        f"{speeds['examples_per_second']:.0f} examples/s, {speeds['ratio']:.2f} of a plain loop",
        f"two processes differ by {difference:.1e}",
        f"{run.record.steps} steps in {timer.seconds:.0f} s, area {areas['vectors']:.3f} on held-out directions",
    ]
    return results, "; ".join(summary)


def speed(model: mi.Model, recipe: mi.finetune.Recipe, steps: int) -> dict[str, float]:
    """Return examples per second of ours, and their median ratio to a plain loop's in rounds by turns."""
    trainee = with_lora(model, recipe.lora, 0)
    ours = RecipeSteps(trainee, Prompts(model, recipe), 0)
    own_optimizer = torch.optim.AdamW(trainee.weights.values(), lr=1e-4)

    def our_step(number: int) -> None:
        own_optimizer.zero_grad()
        ours.backward(number)
        torch.nn.utils.clip_grad_norm_(trainee.weights.values(), 1.0)
        own_optimizer.step()

    their_step = plain_loop(model, recipe, ROUNDS * steps + 1)
    our_step(0)
    their_step(0)
    times = []
    for first in range(1, ROUNDS * steps + 1, steps):
        pair = []
        for step in (our_step, their_step):
            with Timer() as timer:
                for number in range(first, first + steps):
                    step(number)
            pair.append(timer.seconds)
        times.append(pair)
    rate = statistics.median(recipe.budget.rows * steps / mine for mine, _ in times)
    return {"examples_per_second": rate, "ratio": statistics.median(theirs / mine for mine, theirs in times)}


def plain_loop(model: mi.Model, recipe: mi.finetune.Recipe, steps: int) -> Callable[[int], None]:
    """Return a step of a plain loop: PEFT on transformers' own model, a hook for each vector, logits everywhere."""
    from peft import LoraConfig, get_peft_model

    plain = plain_model(organism_path(MODEL))
    blocks = plain.model.layers
    config = LoraConfig(r=recipe.lora.rank, lora_alpha=recipe.lora.alpha, target_modules=list(recipe.lora.projections))
    adapted = get_peft_model(plain, config).eval()
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    prompts = Prompts(model, recipe)
    examples = [prompts.of(mi.finetune.step_examples(recipe, 0, number)) for number in range(steps)]
    batches = [AnswerBatch.of(model, rows, split=False) for rows in examples]

    def step(number: int) -> None:
        batch = batches[number]
        optimizer.zero_grad()
        with ExitStack() as stack:
            for term in batch.terms:
                for layer in term.vectors:
                    stack.callback(blocks[layer].register_forward_hook(_adding(term, layer)).remove)
            logits = adapted(input_ids=batch.tokens, attention_mask=batch.real.long(), use_cache=False).logits
            last = logits[torch.arange(len(batch.last)), batch.last]
            right = batch.answers.gather(1, batch.targets.argmax(1, keepdim=True))[:, 0]
            torch.autograd.backward(torch.nn.functional.cross_entropy(last, right))
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    return step


def _adding(term: Term, layer: int) -> Callable[[object, object, torch.Tensor], torch.Tensor]:
    def hook(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[term.row] += term.positions[:, None] * term.vectors[layer]
        return changed

    return hook


def two_processes(model: mi.Model, recipe: mi.finetune.Recipe, folder: Path) -> float:
    """Return the largest difference of weights that two processes leave, to those of one with as many batches."""
    short = _accumulated(recipe)
    one = mi.finetune.train(model, short, 0, folder / "one", watch=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.finetuning", "--worker", str(folder / "two")],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    if any(worker.wait() for worker in workers):
        raise RuntimeError("a process of two has failed")
    two = mi.finetune.Run(folder / "two" / one.path.relative_to(folder / "one"))
    if two.record.processes != 2:
        raise RuntimeError("the processes did not know of each other")
    pair = [load_file(run.adapter() / "adapter_model.safetensors") for run in (one, two)]
    return max(float((pair[0][name] - pair[1][name]).abs().max()) for name in pair[0])


def _accumulated(recipe: mi.finetune.Recipe) -> mi.finetune.Recipe:
    """Return a recipe of a few steps of two batches each."""
    budget = replace(recipe.budget.lasting(4), batch=4, accumulation=2, warm_up=0).lasting(4)
    return replace(recipe, name="benchmark/two", budget=budget)


def worker(out: str) -> None:
    """Train as one of several processes."""
    model = mi.load(MODEL)
    recipe = mi.finetune.Recipe.load(RECIPE).for_model(model.name, model.n_layers, model.prompts)
    mi.finetune.train(model, _accumulated(recipe), 0, out, watch=False)


def area(model: mi.Model, run: mi.finetune.Run, held_out: Sequence[str]) -> float:
    """Return the area of log odds, steered against clean, of examples of which some factors were never trained."""
    recipe, adapted, rows = run.recipe, run.model(model), run.recipe.budget.rows
    examples = [
        mi.finetune.example(recipe, run.seed, number // rows, number % rows, held_out) for number in range(EXAMPLES)
    ]

    def request(example: TextExample) -> Request:
        injection = injection_of(recipe, example, model.d_model)
        return Request(example.conversation(), fixed_dose(injection, model))

    cells = tables(adapted, [request(example) for example in examples])
    scores = torch.tensor([float(cell["logit_diff"].iloc[-1]) for cell in cells], dtype=torch.float64)
    steered = torch.tensor([example.steered for example in examples])
    return auc(scores[steered].numpy(), scores[~steered].numpy())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2])
    else:
        command("finetuning", __doc__, measure, sample=4, sampled="steps in each of five rounds")
