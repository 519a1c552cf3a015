"""A GGUF file computes what the model that it was written from computes, on the same tokens; or says why it cannot."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_ggufs
import tiny
import torch
from conftest import conversation, vector
from gguf import GGMLQuantizationType, quants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.base.errors import (
    InvalidVectorError,
    MechintError,
    MemoryLimitError,
    ModelValidationError,
    PrerequisiteError,
    UnknownModelError,
)
from mechint.models import gguf_models, loading
from mechint.models.gguf_configs import config_of
from mechint.models.gguf_models import GGUFModel, reading_model
from mechint.models.gguf_tokenizers import tokenizer_of
from mechint.models.gguf_weights import weights_of
from mechint.models.model_names import resolve

CPU = torch.device("cpu")
N_WORDS = len(small_ggufs.tokenizer())


@pytest.fixture(scope="module")
def words() -> dict[str, object]:
    """Metadata of the tiny tokenizer."""
    return small_ggufs.tokenizer_fields(small_ggufs.tokenizer().backend_tokenizer)


@pytest.fixture(scope="module")
def written(words: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A factory of files of MODELS, written once for each kind."""
    folder = tmp_path_factory.mktemp("gguf")

    def make(name: str = "qwen2", kind: str = "F32") -> Path:
        path = folder / f"{name}-{kind}.gguf"
        return path if path.exists() else small_ggufs.write(path, small_ggufs.hf_model(name, N_WORDS), words, kind)

    return make


@pytest.fixture(scope="module")
def whole(written: Callable[..., Path]) -> GGUFModel:
    """The header of a small file."""
    with reading_model(written()) as model:
        return model


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.randint(0, N_WORDS, (1, 120), generator=torch.Generator().manual_seed(0))
    return model(tokens).logits


def read(path: Path) -> torch.nn.Module:
    return loading.load_hf(resolve(path), torch.float32, CPU)


@pytest.mark.parametrize("name", small_ggufs.MODELS)
def test_a_file_computes_what_its_original_computes(name: str, written: Callable[..., Path]) -> None:
    original, converted = small_ggufs.hf_model(name, N_WORDS), read(written(name))
    assert torch.equal(logits(converted), logits(original))
    ours, expected = dict(converted.named_parameters()), dict(original.named_parameters())
    assert ours.keys() == expected.keys()
    exact = 0.0 if "gemma" not in name else 1e-6  # of Gemma's norms, 1 is added and taken away
    assert all(torch.allclose(ours[key], weight, rtol=0, atol=exact) for key, weight in expected.items())
    beside = ("architectures", "dtype", "_name_or_path", "initializer_range")
    configs = [{k: v for k, v in model.config.to_dict().items() if k not in beside} for model in (converted, original)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_quantised_weights_are_those_that_the_format_means(name: str, kind: str, written: Callable[..., Path]) -> None:
    rounded, number = small_ggufs.hf_model(name, N_WORDS), GGMLQuantizationType[kind]
    for weight in rounded.parameters():
        if weight.ndim == 2:  # rows are permuted whole, so that rounding by row and moving rows commute
            values = quants.dequantize(quants.quantize(weight.detach().numpy(), number), number)
            weight.data = torch.from_numpy(np.array(values))
    assert torch.equal(logits(read(written(name, kind))), logits(rounded))
    assert not torch.equal(logits(rounded), logits(small_ggufs.hf_model(name, N_WORDS)))


@pytest.mark.parametrize(("name", "blocks", "scalar"), [("gemma2", 46, 8), ("gemma3", 62, 8), ("gemma3", 61, 16)])
def test_the_largest_gemmas_have_their_own_scale_of_attention(
    name: str, blocks: int, scalar: int, written: Callable[..., Path]
) -> None:
    with reading_model(written(name)) as model:
        tensors = {
            f"blk.{n}.{key.removeprefix('blk.0.')}": t for n in range(blocks) for key, t in model.tensors.items()
        }
        architecture = model.architecture
        deep = replace(
            model, tensors=tensors | model.tensors, fields={**model.fields, f"{architecture}.block_count": blocks}
        )
    assert config_of(deep).query_pre_attn_scalar == scalar  # 32 wide over 4 heads; heads of 16


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, "default"),
        ({"type": "none", "factor": 4.0}, "default"),
        ({"factor": 4.0}, "linear"),  # what llama.cpp means where no type is named
        ({"type": "linear", "factor": 1.0}, "default"),
        ({"type": "yarn", "factor": 4.0, "original_context_length": 64}, "yarn"),
    ],
)
def test_rotary_scaling_is_what_llama_cpp_means(declared: dict[str, object], expected: str, whole: GGUFModel) -> None:
    fields = {**whole.fields, **{f"qwen2.rope.scaling.{key}": value for key, value in declared.items()}}
    rope = config_of(replace(whole, fields=fields)).rope_parameters
    assert (rope["rope_type"], rope.get("factor", 1.0)) == (expected, 4.0 if expected != "default" else 1.0)


def test_other_frequencies_than_llama_3s_are_refused(
    written: Callable[..., Path], words: dict[str, object], tmp_path: Path
) -> None:
    factors = np.linspace(1, 8, 32, dtype=np.float32)
    model = small_ggufs.hf_model("llama 3", N_WORDS)
    path = small_ggufs.write(tmp_path / "x.gguf", model, words, tensors={"rope_freqs.weight": factors})
    with pytest.raises(ModelValidationError, match="not those of Llama"):
        read(path)


def test_a_loaded_file_is_a_model_like_any_other(written: Callable[..., Path], tmp_path: Path) -> None:
    original = small_ggufs.hf_model("qwen3", N_WORDS)
    original.save_pretrained(tmp_path / "original")
    small_ggufs.tokenizer().save_pretrained(tmp_path / "original")
    expected, model = mi.load(tmp_path / "original"), mi.load(written("qwen3"))
    steer = mi.Injection(vector(model), strength=2.0, name="v")
    tables = [mi.score(loaded, conversation(), [mi.CLEAN, steer]) for loaded in (expected, model)]
    assert tables[0]["logit_diff"].tolist() == tables[1]["logit_diff"].tolist()
    assert tables[0]["logit_diff"].nunique() == 2
    assert model.vocabulary == expected.vocabulary
    assert model.tokenizer_source == "GGUF metadata (pre-tokenizer smollm)"
    again = mi.load(model.save(tmp_path / "saved"))
    assert again.identity == model.identity
    assert again.tokenizer.chat_template == model.tokenizer.chat_template == tiny.CHATML
    assert "tokenizer.json" in again.tokenizer_source


def test_a_lora_is_merged_and_runs_on_top(written: Callable[..., Path], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    original = small_ggufs.hf_model("llama", N_WORDS)
    lora = get_peft_model(original, LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "down_proj"]))
    lora.save_pretrained(tmp_path / "lora")
    expected = logits(lora.merge_and_unload())
    base, merged = mi.load(written("llama")), mi.load(written("llama"), adapter=tmp_path / "lora")
    assert torch.equal(
        logits(loading.load_hf(resolve(written("llama")), torch.float32, CPU, tmp_path / "lora")), expected
    )
    assert merged.identity != base.identity
    swap = mi.Swap(base.with_adapter(tmp_path / "lora"), name="swap")
    swapped = mi.score(base, conversation(), [mi.CLEAN, swap])["logit_diff"]
    direct = mi.score(base, conversation(), mi.Swap(merged, name="swap"))["logit_diff"]
    assert swapped[1] == pytest.approx(direct[0], abs=1e-4)
    assert swapped[0] != swapped[1]


def test_nothing_is_shown_while_a_file_is_read(
    written: Callable[..., Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import logging

    monkeypatch.setattr(logging, "_tqdm_active", True)
    for turn in ("enable_progress_bars", "disable_progress_bars"):  # the hub's own, off in tests
        monkeypatch.setattr(logging.hf_hub_utils, turn, lambda: None)
    read(written())
    assert capfd.readouterr() == ("", "")


def test_the_command_line_takes_a_file(written: Callable[..., Path], tmp_path: Path) -> None:
    from analyses import rendering
    from analyses.kit.checks import check_model

    mi.save_conversations([conversation()], tmp_path / "c.json")
    assert rendering.main(["--model", str(written()), str(tmp_path / "c.json")]) == 0
    assert check_model(str(written())) == check_model(str(written()))
    assert (check_model(str(written())).n_layers, check_model(str(written())).d_model) == (2, 32)


# What cannot be read


def outcome(path: Path) -> object:
    """Load all that a file holds; the error if it is one of ours, in one line and naming the file."""
    try:
        tokenizer, _ = loading.load_tokenizer(resolve(path))
        with reading_model(path) as model:
            config = config_of(model)
            return config, weights_of(model, config, torch.float32), tokenizer
    except MechintError as error:
        refusal = error
    assert str(path) in refusal.given
    assert "\n" not in refusal.given
    return refusal


def test_a_file_cut_at_any_length_is_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    content, path = written().read_bytes(), tmp_path / "cut.gguf"
    for length in [*range(0, len(content), len(content) // 60), *range(32), len(content) - 1]:
        path.write_bytes(content[:length])
        assert isinstance(outcome(path), ModelValidationError), length


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_flipped_bits_of_a_header_end_in_one_message(
    at: float, bits: int, written: Callable[..., Path], whole: GGUFModel, tmp_path: Path
) -> None:
    content = bytearray(written().read_bytes())
    header = min(tensor.offset for tensor in whole.tensors.values())
    content[int(at * header)] ^= bits
    (tmp_path / "flipped.gguf").write_bytes(content)
    outcome(tmp_path / "flipped.gguf")  # a letter of a text may still be another one


WRONG: tuple[object, ...] = ("text", -1, 0, 3, 2**40, 0.5, float("nan"), True, [], [1, "a"], ["a"], None)


def everything(model: GGUFModel, path: Path) -> object:
    """Return what is made of a header, or our error."""
    try:
        with reading_model(path):
            config = config_of(model)
            tokenizer = tokenizer_of(model)[0]
            return config.to_dict(), weights_of(model, config, torch.float32).keys(), len(tokenizer)
    except ModelValidationError as error:
        return error


def test_metadata_of_any_type_ends_in_one_message(whole: GGUFModel) -> None:
    sizes = [key for key in whole.fields if key.startswith(("qwen2.attention.head", "qwen2.block", "qwen2.embedding"))]
    for key in whole.fields:
        for value in WRONG:
            changed = {name: old for name, old in whole.fields.items() if name != key}
            changed |= {} if value is None else {key: value}
            outcome = everything(replace(whole, fields=changed), whole.path)
            if key in sizes and value in ("text", -1, 2**40, [], ["a"]):
                assert isinstance(outcome, ModelValidationError), (key, value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "rwkv7"}, "architecture is 'rwkv7'"),
        ({"qwen2.attention.clamp_kqv": 3.0}, "qwen2.attention.clamp_kqv"),
        ({"qwen2.expert_count": 8}, "8 experts"),
        ({"qwen2.attention.causal": False}, "not causal"),
        ({"qwen2.attention.head_count_kv": [1, 2]}, "head_count_kv"),
        ({"qwen2.attention.value_length": 4}, "value_length"),
        ({"qwen2.rope.dimension_count": 4}, "rope.dimension_count"),
        ({"qwen2.rope.scaling.type": "longrope"}, "longrope"),
        ({"qwen2.embedding_length": 64}, "declared sizes"),
        ({"qwen2.block_count": 3}, "lacks the tensor blk.2"),
        ({"qwen2.block_count": 1}, "block_count of 1"),
        ({"qwen2.vocab_size": 7}, "declared sizes"),
        ({"tokenizer.ggml.pre": "new-one"}, "pre-tokenizer is 'new-one'"),
        ({"tokenizer.ggml.pre": None}, "pre-tokenizer is ''"),
        ({"tokenizer.ggml.model": "bert"}, "kind 'bert'"),
        ({"tokenizer.ggml.token_type": None}, "token_type"),
        ({"tokenizer.ggml.eos_token_id": 10_000}, "eos_token is number 10000"),
        ({"tokenizer.ggml.merges": ["xyz"]}, "no pair"),
        ({"tokenizer.chat_template": ["a"]}, "chat_template"),
    ],
)
def test_what_is_not_carried_over_is_named(whole: GGUFModel, changes: dict[str, object], message: str) -> None:
    fields = {key: value for key, value in {**whole.fields, **changes}.items() if value is not None}
    error = everything(replace(whole, fields=fields), whole.path)
    assert isinstance(error, ModelValidationError)
    assert message in error.given
    assert str(whole.path) in error.given


def test_every_tensor_counts(whole: GGUFModel) -> None:
    for name, tensor in whole.tensors.items():
        without = {key: value for key, value in whole.tensors.items() if key != name}
        other = {**whole.tensors, name: replace(tensor, shape=(*tensor.shape, 2))}
        unknown = {**whole.tensors, name: replace(tensor, kind=77)}
        for tensors in (other, unknown):
            assert isinstance(everything(replace(whole, tensors=tensors), whole.path), ModelValidationError), name
        outcome = everything(replace(whole, tensors=without), whole.path)
        assert isinstance(outcome, ModelValidationError) or outcome[1] == weight_names(whole) - {name_of(name)}
    extra = {**whole.tensors, "blk.0.attn_sinks.weight": whole.tensors["output_norm.weight"]}
    assert "attn_sinks" in everything(replace(whole, tensors=extra), whole.path).given


def weight_names(model: GGUFModel) -> set[str]:
    config = config_of(model)
    return set(weights_of(model, config, torch.float32))


def name_of(name: str) -> str:
    from mechint.models.gguf_weights import _BLOCK, _name

    return _name(name, _BLOCK)


def test_a_missing_norm_or_bias_is_told(written: Callable[..., Path], words: dict[str, object], tmp_path: Path) -> None:
    model = small_ggufs.hf_model("qwen2", N_WORDS)
    for name in ("blk.1.attn_k.bias", "blk.0.attn_norm.weight"):
        path = small_ggufs.write(tmp_path / "x.gguf", model, words, tensors={name: None})
        with pytest.raises(ModelValidationError, match=r"missing model\.layers"):
            read(path)


@pytest.fixture
def odd(written: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("m-00001-of-00002.gguf", "empty.gguf", "text.gguf", "big.gguf", "blob")}
    shutil.copy(written(), paths["m-00001-of-00002.gguf"])
    shutil.copy(written(), paths["blob"])
    paths["empty.gguf"].touch()
    paths["text.gguf"].write_text("no model")
    paths["big.gguf"].write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 1, 1))
    os.mkfifo(tmp_path / "pipe.gguf")
    return paths | {"pipe.gguf": tmp_path / "pipe.gguf"}


def test_other_files_say_what_they_are(odd: dict[str, Path], model: mi.Model, written: Callable[..., Path]) -> None:
    messages = {
        "m-00001-of-00002.gguf": "split file",
        "empty.gguf": "empty",
        "text.gguf": "does not begin",
        "big.gguf": "other order of bytes",
        "pipe.gguf": "a pipe",
    }
    for name, message in messages.items():
        with pytest.raises(ModelValidationError, match=message):
            mi.load(odd[name])
    saved = vector(model).at(range(1, 4)).save(odd["blob"].parent / "v.gguf")
    with pytest.raises(ModelValidationError, match="concept vector"):
        mi.load(saved)
    with pytest.raises((MechintError, InvalidVectorError), match="holds a model"):
        mi.ConceptVector.load(written())
    with pytest.raises(UnknownModelError, match=r"GGUF files, big\.gguf"):
        mi.load(odd["blob"].parent)
    with pytest.raises(UnknownModelError, match="no such"):
        mi.load("nowhere.gguf")
    assert resolve(odd["blob"]).is_gguf, "without a suffix, as a blob of another tool's store"


def test_the_package_is_named_where_it_is_not_installed(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(PrerequisiteError, match="pip install gguf"):
        mi.load(written())


def test_memory_that_runs_out_is_told_as_that(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(gguf_models.GGUFModel, "read", fail)
    with pytest.raises(MemoryLimitError):
        mi.load(written())
