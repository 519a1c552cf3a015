"""What all benchmarks need: a random checkpoint of a given shape, the naive way to compute a cell, results on disk."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import mechint as mi
from mechint.base.files import JSON, write_atomically
from mechint.chat.render import Rendered
from mechint.organisms import organism_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Qwen2Config

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Shape:
    """Shape of a random Qwen2 checkpoint."""

    d_model: int
    n_layers: int
    d_mlp: int
    n_heads: int
    n_key_value_heads: int


SMALL = Shape(d_model=256, n_layers=9, d_mlp=704, n_heads=8, n_key_value_heads=2)


def checkpoint(directory: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a random checkpoint with the embedded models' tokenizer, unless it is there; return its directory."""
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    path = directory / f"qwen2-{shape.d_model}-{shape.n_layers}"
    if path.exists():
        return path
    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    torch.manual_seed(seed)
    Qwen2ForCausalLM(configuration(shape, len(tokenizer))).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def configuration(shape: Shape, d_vocab: int, *, tied: bool = True) -> Qwen2Config:
    """Return the configuration of a Qwen2 of some shape."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=d_vocab,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_key_value_heads,
        max_position_embeddings=4096,
        initializer_range=0.05,
        tie_word_embeddings=tied,
    )


def plain_model(path: Path) -> PreTrainedModel:
    """Return the checkpoint as transformers loads it, with its fused attention."""
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Naive:
    """The published way: one row at a time, the first turns filled under a hook, the rest read without it."""

    model: PreTrainedModel
    lens: bool = False

    def cell(self, rendered: Rendered, added: dict[int, torch.Tensor], padding: int = 0) -> torch.Tensor:
        """Return the logits after the last token (at every layer if `lens`); `added` is what is added by layer.

        `padding` masked tokens are put before the first, which changes nothing but the order of sums.
        """
        from transformers import DynamicCache

        cache, stop = DynamicCache(), rendered.prefix_length + padding
        tokens = torch.nn.functional.pad(rendered.token_tensor(), (padding, 0)).to(self.model.device)
        mask = torch.ones_like(tokens)
        mask[:, :padding] = 0
        with torch.no_grad():
            with self._steered(added):
                self.model(
                    tokens[:, :stop],
                    attention_mask=mask[:, :stop] if padding else None,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            out = self.model(
                tokens[:, stop:],
                attention_mask=mask if padding else None,
                past_key_values=cache,
                use_cache=True,
                output_hidden_states=self.lens,
                logits_to_keep=1,
            )
        if not self.lens:
            logits: torch.Tensor = out.logits[0, -1]
            return logits
        streams = torch.stack([hidden[0, -1] for hidden in out.hidden_states[:-1]])
        lens: torch.Tensor = self.model.lm_head(self.model.model.norm(streams))
        return lens

    @contextmanager
    def _steered(self, added: dict[int, torch.Tensor]) -> Iterator[None]:
        def hook(vector: torch.Tensor) -> Callable[..., torch.Tensor]:
            return lambda _module, _args, out: out + vector

        layers = self.model.model.layers
        handles = [layers[layer].register_forward_hook(hook(vector)) for layer, vector in added.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@dataclass
class Timer:
    """Time of what runs inside `with`: wall time, or that of another clock."""

    seconds: float = 0.0
    clock: Callable[[], float] = time.perf_counter

    def __enter__(self) -> Timer:
        self._begin = self.clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += self.clock() - self._begin


def fair_clock() -> Callable[[], float]:
    """Return the clock that other programs disturb least: of one thread its CPU time, of several wall time."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def clock_name() -> str:
    """Return what the fair clock measures: "CPU" or "wall" time."""
    return "CPU" if fair_clock() is time.process_time else "wall"


def machine() -> dict[str, JSON]:
    """Return versions, processor, cores, threads and GPU of the machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def command(
    name: str,
    description: str | None,
    measure: Callable[[Path, int], tuple[dict[str, JSON], str]],
    *,
    sample: int,
    sampled: str,
) -> None:
    """Run a benchmark in a temporary folder, write its results with the machine they come from, print its summary.

    `sample` is the default number of what is `sampled`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--sample", type=int, default=sample, help=f"number of {sampled}")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        results, summary = measure(Path(folder), options.sample)
    record: dict[str, JSON] = {"benchmark": name, "machine": machine(), "sample": options.sample, **results}
    written = write_atomically(RESULTS / f"{name}.json", json.dumps(record, indent=1) + "\n")
    sys.stdout.write(f"{written}: {summary}\n")


def random_vectors(d_model: int, layers: Sequence[int], count: int) -> list[dict[int, torch.Tensor]]:
    """Return random vectors by layer, of about the norm of a residual."""
    generator = torch.Generator().manual_seed(0)
    return [{layer: torch.randn(d_model, generator=generator) for layer in layers} for _ in range(count)]


def injections(d_model: int, n_layers: int, layers: Sequence[int], count: int) -> list[mi.Injection]:
    """Return injections of random vectors at some layers."""
    vectors = (mi.ConceptVector(v, f"v{n}", n_layers) for n, v in enumerate(random_vectors(d_model, layers, count)))
    return [mi.Injection(vector, strength=1.0, name=vector.name) for vector in vectors]
