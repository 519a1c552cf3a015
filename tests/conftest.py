"""Shared fixtures; and jaxtyping annotations are checked by beartype in everything that the tests call."""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("RAY_worker_niceness", "0")  # else its workers wait for the tests that run beside them
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a pool of threads for arrays this small is waiting, beside other work

import numpy as np
import pandas as pd
import plotly.basedatatypes
import typechecks

typechecks.install("mechint")
gc.disable()  # until all is imported and collected: nothing of it is garbage

import prerequisites  # noqa: E402
import reference  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402

import mechint as mi  # noqa: E402
from mechint.chat.conversations import Conversation, Message, save_conversations  # noqa: E402
from mechint.organisms import ORGANISMS  # noqa: E402
from mechint.organisms.truth.wording import Wording  # noqa: E402

LONGEST = {"test_notebooks.py", "test_docs.py"}
# Plotly takes the same few hundred paths of properties apart at every use, in a tenth of a figure's time.
plotly.basedatatypes._str_to_dict_path_full = functools.cache(plotly.basedatatypes._str_to_dict_path_full)
# The modules that hold typed tensors; names imported for the type checker only must exist for beartype too.
TYPED = [name for _, name, _ in pkgutil.walk_packages(mi.__path__, "mechint.") if "organisms" not in name]


def pytest_configure(config: pytest.Config) -> None:
    """Import the library under beartype and carry out its TYPE_CHECKING imports."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        gc.enable()
        return  # this process gives tests out to others and runs none: it would only keep them waiting
    torch.set_num_threads(1)  # models this small lose by more, and badly so beside other work
    for name in TYPED:
        importlib.import_module(name)
    for name in TYPED:
        module = sys.modules[name]
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for node in tree.body:
            for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            if for_types and name != "mechint":
                prerequisites.bind_types(node.body, module.__dict__)


def pytest_collection_finish() -> None:
    """Collect garbage from now on, seldom, and not among the millions of objects that are there by now."""
    gc.freeze()
    gc.set_threshold(20_000)  # tables and figures are made of so many objects that 700 are there at every step
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest modules: one that comes last keeps one process busy and lets the others wait."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Skip tests whose fixtures need what the installed versions do not have."""
    return (yield from prerequisites.skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Skip tests that need what the installed versions do not have."""
    return (yield from prerequisites.skipping())


Load = Callable[..., mi.Model]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave nothing in the user's cache folder, and read nothing from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A factory of random tiny checkpoints, one per architecture, template, seed and depth."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(architecture: str = "qwen2", template: str | None = None, seed: int = 0, n_layers: int = 4) -> Path:
        return tiny.checkpoint(folder, architecture, template, seed, n_layers)

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Callable[..., Path]) -> Load:
    """A factory of loaded tiny models, shared among tests: none of them may change one."""
    loaded: dict[tuple[object, ...], mi.Model] = {}

    def make(
        architecture: str = "qwen2", backend: str = "bridge", template: str | None = None, seed: int = 0
    ) -> mi.Model:
        key = (architecture, backend, template, seed)
        if key not in loaded:
            loaded[key] = mi.load(tiny_checkpoint(architecture, template, seed), backend=backend)
        return loaded[key]

    return make


@pytest.fixture(scope="session")
def plain_hf(tiny_checkpoint: Callable[..., Path]) -> Callable[..., object]:
    """A factory of the same checkpoints in plain Hugging Face."""
    loaded: dict[tuple[object, ...], object] = {}

    def make(architecture: str = "qwen2", template: str | None = None, seed: int = 0) -> object:
        key = (architecture, template, seed)
        if key not in loaded:
            loaded[key] = reference.load(tiny_checkpoint(architecture, template, seed))
        return loaded[key]

    return make


@pytest.fixture(scope="session")
def wording() -> Wording:
    """The wordings that the embedded models are evaluated with."""
    return Wording.load()


class Family(Mapping[str, mi.Model]):
    """The embedded models, shared among tests: each is loaded when it is first looked up."""

    def __getitem__(self, name: str) -> mi.Model:
        return load_once(name)

    def __iter__(self) -> Iterator[str]:
        return iter(ORGANISMS)

    def __len__(self) -> int:
        return len(ORGANISMS)


@pytest.fixture(scope="session")
def family() -> Family:
    """The embedded models."""
    return Family()


@pytest.fixture(scope="session")
def sunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with 64 positions that parks a norm of 4,000 on the first one, as many real models do."""
    path, tokenizer = tmp_path_factory.mktemp("sunk"), tiny.tokenizer("chatml")
    hf = tiny.hf_model("gpt2", len(tokenizer))
    config = type(hf.config).from_dict({**hf.config.to_dict(), "n_positions": 64})
    short = type(hf)(config).eval()
    weights = hf.state_dict()
    weights["transformer.wpe.weight"] = weights["transformer.wpe.weight"][:64]
    weights["transformer.wpe.weight"][0, 5] += 4000.0
    short.load_state_dict(weights)
    short.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def outlier(sunk: Path) -> mi.Model:
    """That model, loaded."""
    return mi.load(sunk)


@pytest.fixture
def model(tiny_model: Load) -> mi.Model:
    """A tiny Qwen2 through the bridge."""
    return tiny_model("qwen2")


def conversation(
    label: str = "c", question: str = "do you detect an injected thought?", **changes: str
) -> Conversation:
    """Two marked messages, then a question that is left open; `setup`, `reply`, `prefix` can be changed."""
    text = {"setup": "Tell me about cats.", "reply": "no thought", "prefix": "The answer is"} | changes
    messages = (
        Message("system", ""),
        Message("user", text["setup"], add_injection=True),
        Message("assistant", text["reply"], add_injection=True),
        Message("user", question),
        Message("assistant", text["prefix"], continue_msg=True),
    )
    return Conversation(label, messages, yes_token=" yes", no_token=" no")


def parsed(text: str) -> ElementTree.Element:
    """What a notebook shows, which is well-formed markup, or an error."""
    return ElementTree.fromstring(f"<div>{text.replace('<br>', '<br/>')}</div>")


def chat(n_words: int) -> mi.Conversation:
    """A user's turn of so many words and a closed answer, without a system message."""
    marked = conversation(f"{n_words} words", "yes?", setup="cats " * n_words, reply="no", prefix="")
    return replace(marked, messages=(*marked.messages[1:-1], replace(marked.messages[-1], content="yes")))


def vector(model: mi.Model, seed: int = 0, scale: float = 1.0) -> mi.ConceptVector:
    """A random vector for every layer of `model`."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(model.n_layers, model.d_model, generator=generator) * scale
    return mi.ConceptVector(dict(enumerate(rows)), f"v{seed}", model.n_layers)


def refuse_pictures(*_: object, **__: object) -> None:
    """Stand for a machine without a browser."""
    raise RuntimeError("no browser in this test")


def load_once(name: str | Path, **options: str) -> mi.Model:
    """Return a model that tests share: none of them may change it."""
    return _load_once(str(name), **options)


@functools.cache
def _load_once(name: str, **options: str) -> mi.Model:
    return _real_load(name, **options)


@functools.cache
def _adapt_once(model: mi.Model, adapter: str | Path) -> mi.Model:
    return _real_with_adapter(model, adapter)


_real_load, _real_with_adapter = mi.load, mi.Model.with_adapter


def make_analyses_quick(patch: pytest.MonkeyPatch) -> None:
    """Let analyses load models and adapters once and draw no pictures, which take seconds and have their own tests."""
    patch.setattr("mechint.figures.pictures.write_images", refuse_pictures)
    patch.setattr("mechint.models.model.load", load_once)
    patch.setattr("mechint.models.model.Model.with_adapter", _adapt_once)


@pytest.fixture
def quick_analyses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Analyses without pictures that load each model once."""
    make_analyses_quick(monkeypatch)


@pytest.fixture
def no_model(quick_analyses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loads a model fails."""
    monkeypatch.setattr("mechint.models.model.load", lambda *_, **__: pytest.fail("the model was loaded"))


def asked_conversations() -> list[Conversation]:
    """Return a question about injection and two control questions."""
    controls = [("no", "is the sea a cat?"), ("yes", "is a thought an answer?")]
    labelled = [
        replace(conversation(f"control-{group}", question), extra={"kind": "control", "group": group})
        for group, question in controls
    ]
    return [conversation("question"), *labelled]


@pytest.fixture(scope="session")
def inputs(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name a tiny model, three conversations and two vectors of it without a block 0."""
    folder = tmp_path_factory.mktemp("inputs")
    save_conversations(asked_conversations(), folder / "asked.json")
    for seed, name in enumerate(("cats", "bread")):
        rows = np.random.default_rng(seed).normal(size=(4, 32)).astype(np.float32)
        _save_vector(folder / "vectors" / f"{name}.safetensors", rows, name)
    options = {"--model": tiny_checkpoint("qwen2"), "--conversations": folder / "asked.json"}
    options |= {"--vectors": folder / "vectors", "--n-random": 2, "--strength": 2}
    return [str(word) for option in options.items() for word in option]


def _save_vector(path: Path, rows: np.ndarray, name: str) -> None:
    vectors = {layer: torch.tensor(rows[layer]) for layer in range(1, len(rows))}
    mi.ConceptVector(vectors, name, len(rows)).save(path)


@pytest.fixture(scope="session")
def finished(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of one whole run with a layer sweep."""
    from analyses import logit_lens

    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        make_analyses_quick(patch)
        assert logit_lens.main([*inputs, "--layer-sweep", "--out", str(out)]) == 0
    return out / "logit_lens"


@pytest.fixture(scope="session")
def table(finished: Path) -> pd.DataFrame:
    """Return the table of that run."""
    return pd.read_parquet(finished / "table.parquet")
