"""Both backends against plain Hugging Face: clean, steered, cached and uncached, padded and not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reference
import tiny
import torch

import mechint as mi
from mechint.base.errors import HookError, ModelValidationError, UnknownModelError, UsageError
from mechint.models.cache import KVCache
from mechint.models.capture import residuals
from mechint.models.validation import validate

CASES = [(arch, backend) for arch in tiny.ARCHITECTURES for backend in ("bridge", "hooked")]
TOLERANCE = 1e-4


def some_tokens(model: mi.Model, n_pos: int = 30, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, len(model.tokenizer), (batch, n_pos), generator=generator)


def last_resid(model: mi.Model, tokens: torch.Tensor, **kwargs: object) -> torch.Tensor:
    at = [tokens.shape[1] - 1]
    return residuals(model, tokens, [at] * len(tokens), [model.n_layers - 1], **kwargs)[0]


def kept_at(model: mi.Model, name: str, tokens: torch.Tensor, **kwargs: object) -> torch.Tensor:
    """What a hook point sees at the last position of a pass."""
    kept: list[torch.Tensor] = []
    hooks = [*kwargs.pop("hooks", ()), (name, lambda activation, /, *, hook: kept.append(activation[:, -1]))]
    model.forward(tokens, hooks=hooks, **kwargs)
    assert len(kept) == 1
    return kept[0]


@pytest.mark.parametrize(("arch", "backend"), CASES)
def test_clean_logits_equal_hugging_face(arch, backend, tiny_model, plain_hf):
    model, tokens = tiny_model(arch, backend), some_tokens(tiny_model(arch, backend))
    expected = plain_hf(arch)(tokens).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(model.logits(tokens), expected, atol=TOLERANCE, rtol=0)
    readout = model.readout.logits(last_resid(model, tokens))
    torch.testing.assert_close(readout, expected[:, -1], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("arch", "backend"), CASES)
def test_steered_logits_equal_a_forward_hook(arch, backend, tiny_model, plain_hf):
    model, tokens = tiny_model(arch, backend), some_tokens(tiny_model(arch, backend))
    wave = torch.linspace(-1, 1, model.d_model)
    for layer in range(model.n_layers):
        expected = reference.logits(plain_hf(arch), tokens[0].tolist(), [reference.Addition(layer, wave, range(30))])
        last = model.resid_post(model.n_layers - 1)
        hooks = [(model.resid_post(layer), lambda activation, /, *, hook: activation + wave)]
        logits = model.readout.logits(kept_at(model, last, tokens, hooks=hooks))
        torch.testing.assert_close(logits[0], expected, atol=TOLERANCE, rtol=0)
        assert (expected - reference.logits(plain_hf(arch), tokens[0].tolist())).abs().max() > 1e-3


@pytest.mark.parametrize(("arch", "backend"), CASES)
@pytest.mark.parametrize("split", [1, 20, 29])
def test_cached_equals_uncached(arch, backend, split, tiny_model, plain_hf):
    model, tokens = tiny_model(arch, backend), some_tokens(tiny_model(arch, backend), batch=2)
    cache = model.forward(tokens[:, :split])
    before = cache.fingerprint()
    resid = last_resid(model, tokens[:, split:], cache=cache)
    torch.testing.assert_close(
        model.readout.logits(resid), plain_hf(arch)(tokens).logits[:, -1], atol=TOLERANCE, rtol=0
    )
    assert (cache.n_pos, cache.n_layers, cache.batch) == (split, model.n_layers, 2)
    assert cache.fingerprint() == before


@pytest.mark.parametrize(("arch", "backend"), CASES)
def test_left_padding_is_exact(arch, backend, tiny_model, plain_hf):
    model = tiny_model(arch, backend)
    rows = [some_tokens(model, n, seed=n)[0] for n in (30, 23, 17)]
    mask = torch.zeros(3, 30, dtype=torch.bool)
    padded = torch.zeros(3, 30, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, 30 - len(row) :], mask[index, 30 - len(row) :] = row, True
    logits = model.logits(padded, mask)[:, -1]
    cache = model.forward(padded[:, :28], mask=mask[:, :28])
    resid = kept_at(model, model.resid_post(model.n_layers - 1), padded[:, 28:], cache=cache)
    for index, row in enumerate(rows):
        expected = plain_hf(arch)(row[None]).logits[0, -1]
        torch.testing.assert_close(logits[index], expected, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(model.readout.logits(resid)[index], expected, atol=TOLERANCE, rtol=0)


def test_readout_keeps_float32_from_a_bfloat16_model(tiny_checkpoint):
    for backend in ("bridge", "hooked"):
        model = mi.load(tiny_checkpoint("qwen2"), backend=backend, dtype="bfloat16")
        resid = last_resid(model, some_tokens(model))
        readings = model.readout.read(resid, torch.arange(4))
        weight = model.readout.weight.float()
        normed = model.readout.norm(resid.float())
        assert readings.logits.dtype == torch.float32
        torch.testing.assert_close(readings.logits, normed @ weight[:4].T)
        logits = model.logits(some_tokens(model))[0, -1]
        assert logits.dtype == torch.bfloat16
        assert set((readings.logits * 64).frac().abs().flatten().tolist()) != {0.0}  # not on bfloat16's grid


def test_readout_chunks_agree_with_softmax(model, monkeypatch):
    from mechint.models import readout

    resid = last_resid(model, some_tokens(model))
    logits = model.readout.logits(resid)
    for chunk in (7, 100, 10_000):
        monkeypatch.setattr(readout, "_VOCAB_CHUNK", chunk)
        readings = model.readout.read(resid, torch.tensor([5, 0]))
        torch.testing.assert_close(readings.log_sum_exp, logits.logsumexp(-1))
        torch.testing.assert_close(readings.logits, logits[:, [5, 0]])
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        torch.testing.assert_close(readings.entropy, entropy, atol=1e-5, rtol=1e-5)


def test_wrap_agrees_with_load(tiny_checkpoint, tiny_model):
    tokens = some_tokens(tiny_model("llama"))
    for backend in ("bridge", "hooked"):
        loaded = tiny_model("llama", backend)
        wrapped = mi.wrap(loaded.backend.handle, tokenizer=loaded.tokenizer)
        torch.testing.assert_close(last_resid(wrapped, tokens), last_resid(loaded, tokens))
        assert wrapped.identity == loaded.identity


def test_wrap_takes_a_folded_hooked_transformer(tiny_model):
    """HookedTransformer.from_pretrained does so by default: norms folded, writing weights and unembedding centred."""
    import copy

    plain = tiny_model("gpt2", "hooked")
    folded = copy.deepcopy(plain.backend.handle)
    folded.process_weights_(fold_ln=True, center_writing_weights=True, center_unembed=True)
    wrapped, tokens = mi.wrap(folded, tokenizer=plain.tokenizer), some_tokens(plain)
    ids = torch.tensor([5, 9])
    ours = wrapped.readout.read(last_resid(wrapped, tokens), ids)
    expected = plain.readout.read(last_resid(plain, tokens), ids)
    torch.testing.assert_close(ours.logits[:, 0] - ours.logits[:, 1], expected.logits[:, 0] - expected.logits[:, 1])


def test_wrap_refuses_other_objects(model):
    with pytest.raises(UsageError, match=r"allowed: a (HookedTransformer or a )?TransformerBridge"):
        mi.wrap(torch.nn.Linear(2, 2))


def test_identity_tells_weights_apart(tiny_checkpoint, tiny_model):
    assert mi.load(tiny_checkpoint("qwen2")).identity == tiny_model("qwen2").identity
    assert tiny_model("qwen2", seed=1).identity != tiny_model("qwen2").identity


def test_adapter_is_merged(tiny_checkpoint, tmp_path, plain_hf):
    from peft import LoraConfig, get_peft_model

    base = reference.load(tiny_checkpoint("qwen2"))
    lora = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    lora.save_pretrained(tmp_path / "adapter")
    model = mi.load(tiny_checkpoint("qwen2"), adapter=tmp_path / "adapter")
    tokens = some_tokens(model)
    torch.testing.assert_close(model.logits(tokens), lora.eval()(tokens).logits, atol=TOLERANCE, rtol=0)
    assert (model.logits(tokens) - plain_hf("qwen2")(tokens).logits).abs().max() > 1e-2
    with pytest.raises(ModelValidationError, match="adapter"):
        mi.load(tiny_checkpoint("qwen2"), adapter=tmp_path / "nothing")


def test_an_adapter_directory_loads_with_the_base_model_it_names(tiny_checkpoint, tmp_path):
    from peft import LoraConfig, get_peft_model

    base, adapter = reference.load(tiny_checkpoint("qwen2")), tmp_path / "adapter"
    base.name_or_path = base.config._name_or_path = str(tiny_checkpoint("qwen2"))
    lora = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    lora.save_pretrained(adapter)
    model = mi.load(adapter)
    assert model.identity == mi.load(tiny_checkpoint("qwen2"), adapter=adapter).identity
    assert model.identity != mi.load(tiny_checkpoint("qwen2")).identity
    config = adapter / "adapter_config.json"
    for base_name, message in (("", "base_model_name_or_path"), (str(adapter), "adapter too"), ("./gone", "gone")):
        config.write_text(json.dumps({"base_model_name_or_path": base_name}))
        with pytest.raises(UnknownModelError, match=message):
            mi.load(adapter)
    second = tmp_path / "second"
    second.mkdir()
    (second / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(adapter)}))
    config.write_text(json.dumps({"base_model_name_or_path": str(second)}))
    with pytest.raises(UnknownModelError, match="adapter too"):
        mi.load(adapter)


def test_an_embedded_adapter_goes_by_its_name():
    merged = mi.load("organism-lora")
    assert merged.name == "organism-lora"
    assert merged.identity == mi.load("organism", adapter="organism-lora").identity
    assert merged.identity != mi.load("organism").identity


@pytest.mark.parametrize("name", ["organizm", "./nowhere", "/no/such/place", "a b/c", "gpt2"])
def test_unknown_names_are_refused_at_once(name):
    with pytest.raises(UnknownModelError, match="organism"):
        mi.load(name)


def test_hub_id_without_a_hub_is_refused_at_once():
    with pytest.raises(UnknownModelError, match="not cached"):
        mi.load("nobody/no-such-model")


def test_directory_without_a_model(tmp_path):
    with pytest.raises(UnknownModelError, match=r"config\.json"):
        mi.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelValidationError):
        mi.load(tmp_path)


@pytest.mark.parametrize(
    ("option", "value"), [("dtype", "float8"), ("device", "tpu9"), ("device", "meta"), ("backend", "vllm")]
)
def test_bad_options(option, value, tiny_checkpoint):
    with pytest.raises(UsageError, match=value):
        mi.load(tiny_checkpoint("qwen2"), **{option: value})


def test_truncated_weights_are_reported(tiny_checkpoint, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint("qwen2"), broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelValidationError, match="weights"):
        mi.load(broken)


def test_validation_notices_a_model_that_ignores_edits(tiny_checkpoint, monkeypatch):
    model = mi.load(tiny_checkpoint("gpt_neox"))
    real = model.backend.forward
    monkeypatch.setattr(model.backend, "forward", lambda t, c, m, hooks: real(t, c, m, hooks[-1:]))
    with pytest.raises(ModelValidationError, match="changes nothing"):
        validate(model)


def test_validation_notices_a_cache_that_is_not_used(tiny_checkpoint, monkeypatch):
    model = mi.load(tiny_checkpoint("gpt_neox"))
    real = model.backend.forward
    monkeypatch.setattr(model.backend, "forward", lambda t, c, m, hooks: real(t, KVCache(), m, hooks))
    with pytest.raises(ModelValidationError, match="cached and an uncached"):
        validate(model)


def test_unknown_hook_names_are_refused(model):
    """TransformerLens 3 ignores names that match nothing."""
    with pytest.raises(HookError, match=r"blocks\.99"):
        model.forward(some_tokens(model), hooks=[("blocks.99.hook_resid_post", lambda activation, /, *, hook: None)])


def test_foreign_hooks_are_refused(tiny_checkpoint):
    for backend in ("bridge", "hooked"):
        model = mi.load(tiny_checkpoint("qwen2", seed=3), backend=backend)
        model.backend.handle.add_hook("blocks.1.hook_resid_post", lambda activation, hook: activation * 2)
        with pytest.raises(HookError, match=r"blocks\.1"):
            model.forward(some_tokens(model))
        with pytest.raises(HookError):
            mi.wrap(model.backend.handle, tokenizer=model.tokenizer)


def test_hooks_are_removed_when_an_exception_flies(model):
    def explode(activation: torch.Tensor, /, *, hook: object) -> None:
        raise ZeroDivisionError

    tokens = some_tokens(model)
    before = last_resid(model, tokens)
    with pytest.raises(ZeroDivisionError):
        model.forward(tokens, hooks=[(model.resid_post(1), explode)])
    assert model.backend.live_hooks() == []
    torch.testing.assert_close(last_resid(model, tokens), before, rtol=0, atol=0)


def test_llama3_rotary_scaling_converts(tmp_path):
    """The rotary scaling of Llama 3.1 and later, at positions where it matters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 64
    tok = tiny.tokenizer("llama3")
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters=rope,
        initializer_range=0.15,
    )
    torch.manual_seed(0)
    path = Path(tmp_path / "llama31")
    LlamaForCausalLM(config).save_pretrained(path)
    tok.save_pretrained(path)
    expected = reference.load(path)
    for backend in ("bridge", "hooked"):
        model = mi.load(path, backend=backend)
        tokens = some_tokens(model, 200)
        torch.testing.assert_close(model.logits(tokens), expected(tokens).logits, atol=TOLERANCE, rtol=0)


def test_other_rotary_scalings_are_refused_by_hooked(tmp_path, tiny_checkpoint):
    import json
    import shutil

    path = tmp_path / "yarn"
    shutil.copytree(tiny_checkpoint("qwen2"), path)
    config = json.loads((path / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelValidationError, match="yarn"):
        mi.load(path, backend="hooked")
    assert mi.load(path).n_layers == 4


def test_a_model_without_a_language_head_is_refused(tiny_checkpoint):
    model = mi.load(tiny_checkpoint("qwen2", seed=7))
    bridge = model.backend.handle
    bridge.original_model.get_output_embeddings = lambda: None
    with pytest.raises(ModelValidationError, match="without output embeddings"):
        mi.wrap(bridge, tokenizer=model.tokenizer)


def test_a_model_without_a_tokenizer_is_refused(tiny_checkpoint, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_checkpoint("llama"), bare, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ModelValidationError, match="tokenizer"):
        mi.load(bare)


def test_missing_weights_are_not_made_up(tiny_checkpoint, tmp_path):
    """transformers fills weights that a checkpoint lacks with random numbers, and only logs it."""
    import shutil

    from safetensors.torch import load_file, save_file

    holed = tmp_path / "holed"
    shutil.copytree(tiny_checkpoint("qwen2"), holed)
    weights = load_file(holed / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, holed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelValidationError, match=r"missing model\.layers\.1\.mlp\.up_proj"):
        mi.load(holed)


def test_a_model_spread_over_what_is_there_gives_the_same_numbers(tiny_checkpoint):
    """On a machine without GPUs, all of it is put on the CPU."""
    path = tiny_checkpoint("qwen2")
    tokens = torch.tensor([[3, 4, 5, 6]])
    spread, plain = mi.load(path, device="auto"), mi.load(path)
    assert spread.devices == {torch.device("cpu")} or torch.cuda.is_available()
    assert (spread.logits(tokens).cpu() - plain.logits(tokens)).abs().max() < 1e-5
    with pytest.raises(UsageError, match="backend"):
        mi.load(path, device="auto", backend="hooked")
