"""Damaged checkpoints end in one message with the true reason; none loads as another model than its files hold."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import mechint as mi
from mechint.base.errors import MechintError, ModelValidationError, UnknownModelError, UsageError
from mechint.models import loading
from mechint.models.model_names import resolve
from mechint.models.tokenizer_files import check_rows

CPU = torch.device("cpu")
WRONG = ("text", -1, 0, 3, 2**40, 0.5, float("nan"), True, None, [], [1, "a"], {})
SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "intermediate_size")
JSON_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
MORE = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Callable[..., Path]) -> Path:
    """A small checkpoint, which no test changes."""
    return tiny_checkpoint("qwen2", n_layers=2)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged; what is not changed stays the same file."""
    return fresh(whole, tmp_path)


def fresh(whole: Path, folder: Path) -> Path:
    path = folder / "checkpoint"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for file in whole.iterdir():
        (path / file.name).symlink_to(file)
    return path


def put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def outcome(path: Path) -> object:
    """Return what loads; our error, told in one line that names the checkpoint, if it does not."""
    try:
        source = resolve(path)
        return loading.load_tokenizer(source)[0], loading.load_hf(source, torch.float32, CPU)
    except MechintError as error:
        refusal = error
    assert str(path) in refusal.given
    assert "\n" not in refusal.given
    assert len(refusal.given) < 700
    return refusal


def refused(path: Path, *words: str) -> None:
    error = outcome(path)
    assert isinstance(error, ModelValidationError | UnknownModelError), error
    for word in words:
        assert word in error.given


@pytest.mark.parametrize("name", [*JSON_FILES, "model.safetensors"])
def test_a_file_cut_at_any_length_is_refused(name: str, whole: Path, copy: Path) -> None:
    content = (whole / name).read_bytes()
    inside = content.rstrip()  # a last line break may go
    for length in [*range(0, len(inside), max(1, len(inside) // 25)), len(inside) - 1]:
        put(copy / name, content[:length])
        refused(copy, name.partition(".")[0] if name != "model.safetensors" else "its weights")


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"5", b'"a"', b"[" * 100_000, b'{"a": "\xff"}', b'{"a": ' + b"9" * 5000]
)
def test_json_of_another_kind_is_named(name: str, content: bytes, copy: Path) -> None:
    put(copy / name, content)
    refused(copy, name)


@pytest.mark.parametrize("name", [*JSON_FILES, "model.safetensors", "chat_template.jinja"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "link to nothing", "device"])
def test_what_is_no_file_is_not_taken_for_a_missing_one(name: str, kind: str, copy: Path) -> None:
    (copy / name).unlink()
    make = {
        "pipe": lambda: os.mkfifo(copy / name),
        "directory": (copy / name).mkdir,
        "link to nothing": lambda: (copy / name).symlink_to("nowhere"),
        "device": lambda: (copy / name).symlink_to("/dev/zero"),
    }
    make[kind]()
    refused(copy, "config.json" if name == "config.json" else name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_is_missing_is_said(name: str, copy: Path) -> None:
    (copy / name).unlink()
    refused(copy, {"tokenizer.json": "no token"}.get(name, name))


@MORE
@example(name="num_attention_heads", value=0)
@example(name="num_key_value_heads", value=0)
@example(name="hidden_size", value=3)
@given(
    name=st.sampled_from((*SIZES, "vocab_size", "layer_types", "rope_parameters", "model_type")),
    value=st.sampled_from(WRONG),
)
def test_a_configuration_of_any_type_ends_in_one_message(name: str, value: object, whole: Path, tmp_path: Path) -> None:
    path = fresh(whole, tmp_path)
    config = json.loads((whole / "config.json").read_text())
    put(path / "config.json", json.dumps(config | {name: value}).encode())
    loaded = outcome(path)
    if name in SIZES:
        assert isinstance(loaded, ModelValidationError)
        assert "tokenizer" not in loaded.given, "the configuration is at fault"
    if name in SIZES and isinstance(value, int) and not isinstance(value, bool) and value < 1:
        assert name in loaded.given or name == "num_hidden_layers"


@pytest.mark.parametrize("name", ["eos_token_id", "pad_token_id", "max_new_tokens"])
@pytest.mark.parametrize("value", ["text", 0.5, ["a"], {}, True, [1, 2], None, 7])
def test_end_tokens_are_numbers(name: str, value: object, whole: Path, copy: Path) -> None:
    content = json.loads((whole / "generation_config.json").read_text()) | {name: value}
    put(copy / "generation_config.json", json.dumps(content).encode())
    loaded = outcome(copy)
    if isinstance(loaded, MechintError):
        assert "generation_config.json" in loaded.given
    if name == "eos_token_id":
        assert isinstance(loaded, MechintError) == (value not in (None, 7, [1, 2]) or value is True)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", ["text", 0, -1])
def test_a_wrong_size_is_named(name: str, value: object, whole: Path, copy: Path) -> None:
    config = json.loads((whole / "config.json").read_text()) | {name: value, "layer_types": None}
    put(copy / "config.json", json.dumps(config).encode())
    refused(copy, name)


def leaves(content: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield the way to everything in parsed JSON, long lists and words apart."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:8]:
        yield (*path, key)
        yield from leaves(value, (*path, key))


@MORE
@given(data=st.data())
def test_a_tokenizer_of_any_type_ends_in_one_message(data: st.DataObject, whole: Path, tmp_path: Path) -> None:
    path = fresh(whole, tmp_path)
    name = data.draw(st.sampled_from(("tokenizer.json", "tokenizer_config.json")))
    content = json.loads((whole / name).read_text())
    place = data.draw(st.sampled_from(list(leaves(content))))
    owner = content
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = data.draw(st.sampled_from(WRONG))
    put(path / name, json.dumps(content).encode())
    loaded = outcome(path)
    assert isinstance(loaded, MechintError) or loaded[0]("yes", add_special_tokens=False)["input_ids"]


# Weights


def change(whole: Path, copy: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(whole / "model.safetensors")
    edit(weights)
    (copy / "model.safetensors").unlink()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})


NAMES = ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite"), (-float("inf"), "infinite")]
)
def test_one_number_that_is_none_is_found(name: str, value: str, word: str, whole: Path, copy: Path) -> None:
    change(whole, copy, lambda weights: weights[name].view(-1)[-1:].fill_(float(value)))
    refused(copy, f"{name} holds {word} values")


def test_numbers_that_a_dtype_cannot_hold_are_found(whole: Path, copy: Path) -> None:
    change(whole, copy, lambda weights: weights[NAMES[0]].view(-1)[:1].fill_(1e30))
    assert not isinstance(outcome(copy), MechintError)
    with pytest.raises(ModelValidationError, match="infinite values in float16"):
        loading.load_hf(resolve(copy), torch.float16, CPU)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool, torch.complex64])
def test_weights_of_other_kinds_of_numbers_are_refused(name: str, dtype: torch.dtype, whole: Path, copy: Path) -> None:
    change(whole, copy, lambda weights: weights.update({name: weights[name].to(dtype)}))
    refused(copy, name, "quantisation")


@pytest.mark.parametrize("name", NAMES)
def test_shapes_of_another_model_are_told(name: str, whole: Path, copy: Path) -> None:
    change(whole, copy, lambda weights: weights.update({name: weights[name][1:].clone()}))
    refused(copy, f"{name} is shaped")
    change(whole, fresh(whole, copy.parent), lambda weights: weights.pop(name))
    refused(copy, "missing", name)


@pytest.mark.parametrize(
    ("extra", "of_the_model"),
    [
        ("model.layers.2.mlp.up_proj.weight", True),
        ("model.layers.0.self_attn.o_proj.bias", True),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", True),
        ("model.norm.bias", True),
        ("model.layers.2.eh_proj.weight", False),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", False),
        ("visual.blocks.0.norm.weight", False),
    ],
)
def test_weights_that_the_configuration_leaves_out_are_told(
    extra: str, of_the_model: bool, whole: Path, copy: Path
) -> None:
    change(whole, copy, lambda weights: weights.update({extra: torch.ones(4)}))
    loaded = outcome(copy)
    assert isinstance(loaded, ModelValidationError) == of_the_model
    if of_the_model:
        assert "no place" in loaded.given


def test_a_tied_head_that_is_stored_too_is_no_fault(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    model = tiny.hf_model("gemma3", len(tokenizer), n_layers=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    tied = weights | {"lm_head.weight": model.get_input_embeddings().weight.detach().clone()}
    save_file(tied, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert not isinstance(outcome(tmp_path), MechintError)


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("kind", ["hidden among tensors", "bare", "garbage"])
def test_a_pickle_that_runs_something_is_refused_in_plain_words(kind: str, whole: Path, copy: Path) -> None:
    trace, file = copy.parent / "trace", copy / "pytorch_model.bin"
    (copy / "model.safetensors").unlink()
    if kind == "hidden among tensors":
        torch.save(load_file(whole / "model.safetensors") | {"x": Hostile(trace)}, file)
    else:
        put(file, pickle.dumps(Hostile(trace), protocol=2) if kind == "bare" else b"x" * 50)
    refused(copy, "never run")
    assert not trace.exists()


def test_memory_and_interruptions_pass_as_they_are(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (KeyboardInterrupt, MemoryError, torch.OutOfMemoryError):

        def fail(*_: object, error: type[BaseException] = error) -> None:
            raise error

        monkeypatch.setattr(loading, "_from_checkpoint", fail)
        with pytest.raises(error):
            loading.load_hf(resolve(whole), torch.float32, CPU)


# Tokenizers of other models, names, devices


def test_tokens_beyond_the_embedding_are_refused(whole: Path) -> None:
    tokenizer, _ = loading.load_tokenizer(resolve(whole))
    check_rows(tokenizer, len(tokenizer), "m")
    with pytest.raises(ModelValidationError, match=rf"token {len(tokenizer) - 1} .* {len(tokenizer) - 1} rows"):
        check_rows(tokenizer, len(tokenizer) - 1, "m")
    tokenizer.add_tokens(["<padding-only>"])
    check_rows(tokenizer, len(tokenizer) - 1, "m")  # a token that no chat needs
    tokenizer.chat_template += "{{ '<padding-only>' }}"
    with pytest.raises(ModelValidationError, match="padding-only"):
        check_rows(tokenizer, len(tokenizer) - 1, "m")


def test_a_tokenizer_of_another_model_is_refused(whole: Path, copy: Path) -> None:
    content = json.loads((whole / "tokenizer.json").read_text())
    content["model"]["vocab"]["zorp"] = 5000
    put(copy / "tokenizer.json", json.dumps(content).encode())
    with pytest.raises(ModelValidationError, match="token 5000 "):
        mi.load(copy)


@pytest.mark.parametrize(
    "name",
    ["a" * 3000, "a\0b", "~nobody/x", "/dev/null", "/dev/zero", "", ".", "/", "ö/é", "a/b--c", "a\n", "/etc/passwd"],
)
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(UsageError) as error:
        mi.load(name)
    assert len(error.value.given) < 500


@pytest.mark.parametrize(
    "device", ["meta", "nonsense", "", "cpu:7", "cpu:-1", "hpu", "privateuseone", "vulkan", "fpga", "cpu "]
)
def test_devices_that_compute_nothing_here(device: str, whole: Path) -> None:
    with pytest.raises(UsageError, match="device=") as error:
        mi.load(whole, device=device)
    assert len(error.value.given) < 300
