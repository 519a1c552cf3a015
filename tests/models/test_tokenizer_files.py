"""A checkpoint is read with the tokenizer of its own tokenizer.json, whatever its configuration makes of that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reference
import tiny
import torch
from conftest import conversation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

import mechint as mi
from mechint.base.errors import ModelValidationError
from mechint.chat.render import render
from mechint.models import loading
from mechint.models.model_names import resolve
from mechint.models.tokenizer_files import own_tokenizer, read_rules

CORPUS = [*tiny.CORPUS, *["1234 2024 99 100 it's"] * 40]


def byte_level(*, digits: str = "") -> Tokenizer:
    """Byte-level BPE as most chat models have it; `digits` names how numbers are split: not at all, or one by one."""
    raw = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    single = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([single, level]) if digits == "single" else level
    raw.decoder = decoders.ByteLevel()
    return trained(raw, alphabet=pre_tokenizers.ByteLevel.alphabet())


def metaspace() -> Tokenizer:
    raw = Tokenizer(models.BPE(unk_token="<pad>"))
    raw.normalizer = normalizers.NFKC()
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return trained(raw)


def trained(raw: Tokenizer, alphabet: list[str] | None = None) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=450, special_tokens=list(tiny.SPECIALS), initial_alphabet=alphabet or [], show_progress=False
    )
    raw.train_from_iterator(CORPUS, trainer)
    return raw


KINDS = {"whole numbers": byte_level, "single digits": lambda: byte_level(digits="single"), "metaspace": metaspace}
DECLARED = ("PreTrainedTokenizerFast", "LlamaTokenizerFast", "Qwen2Tokenizer", None)
MODEL_TYPES = ("qwen2", "qwen3", "llama", "gemma2", "phi3")


def directory(path: Path, raw: Tokenizer, model_type: str, declared: str | None, **more: object) -> Path:
    """Write a checkpoint's configuration and tokenizer, whose class is declared, or not."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=tiny.CHATML, **more
    )
    tokenizer.save_pretrained(path)
    content = json.loads((path / "tokenizer_config.json").read_text())
    content.pop("tokenizer_class")
    content |= {} if declared is None else {"tokenizer_class": declared}
    (path / "tokenizer_config.json").write_text(json.dumps(content))
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return path


def loaded(path: Path) -> tuple[PreTrainedTokenizerFast, str]:
    return loading.load_tokenizer(resolve(path))


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedTokenizerFast, Tokenizer]:
    path = directory(tmp_path_factory.mktemp("qwen2"), byte_level(), "qwen2", None)
    return loaded(path)[0], Tokenizer.from_file(str(path / "tokenizer.json"))


@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_file(kind: str, model_type: str, declared: str | None, tmp_path: Path) -> None:
    path = directory(tmp_path, KINDS[kind](), model_type, declared)
    tokenizer, source = loaded(path)
    truth = Tokenizer.from_file(str(path / "tokenizer.json"))
    for text in ("1234 cats,  in\n\n2024 — don't", "<|im_start|>user\nyes<|im_end|>\n", " yes"):
        assert (
            tokenizer(text, add_special_tokens=False)["input_ids"] == truth.encode(text, add_special_tokens=False).ids
        )
    assert "tokenizer.json" in source
    assert tokenizer.chat_template == tiny.CHATML
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")


@given(text=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_the_same_tokens(replaced: tuple[PreTrainedTokenizerFast, Tokenizer], text: str) -> None:
    tokenizer, truth = replaced
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == truth.encode(text, add_special_tokens=False).ids


def test_what_was_replaced_is_told_with_the_first_difference(tmp_path: Path) -> None:
    _, source = loaded(directory(tmp_path, byte_level(), "qwen2", None))
    assert source.startswith("tokenizer.json; transformers' Qwen2Tokenizer would split other tokens: ")
    assert "42" in source


def test_a_tokenizer_that_transformers_builds_right_is_kept_without_a_word(tmp_path: Path) -> None:
    path = directory(tmp_path, byte_level(), "llama", "PreTrainedTokenizerFast")
    assert loading.load_tokenizer(resolve(path))[1] == "tokenizer.json"


def test_added_words_are_those_of_the_file(tmp_path: Path) -> None:
    raw = byte_level()
    raw.add_tokens(["<think>", "</think>", "zorp"])
    tokenizer, _ = loaded(directory(tmp_path, raw, "qwen2", None, extra_special_tokens=["<tool>"]))
    for word in ("<think>", "zorp", "<tool>"):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


def test_a_broken_file_is_one_message(tmp_path: Path) -> None:
    path = directory(tmp_path, byte_level(), "llama", "PreTrainedTokenizerFast")
    text = (path / "tokenizer.json").read_text()
    for broken in (text[: len(text) // 2], "[]", "{}", text.replace('"merges"', '"murges"')):
        (path / "tokenizer.json").write_text(broken)
        with pytest.raises(ModelValidationError):
            loading.load_tokenizer(resolve(path))


def test_numbers_are_those_of_plain_hugging_face_on_the_files_tokens(tmp_path: Path) -> None:
    """An undeclared qwen2 checkpoint, whose family's rules would split its digits."""
    raw = byte_level()
    path = directory(tmp_path, raw, "qwen2", None)
    model = tiny.hf_model("qwen2", raw.get_vocab_size() + 3)
    model.save_pretrained(path)
    messages = [
        {"role": "user", "content": "Tell me of 1234 cats in 2024.", "add_injection": True},
        {"role": "assistant", "content": "The answer is", "continue_msg": True},
    ]
    chat = mi.Conversation.from_dict({"label": "digits", "yes_token": " yes", "no_token": " no", "messages": messages})
    table = mi.score(mi.load(path), chat, mi.CLEAN)
    text = "<|im_start|>user\nTell me of 1234 cats in 2024.<|im_end|>\n<|im_start|>assistant\nThe answer is"
    tokens = torch.tensor([raw.encode(text, add_special_tokens=False).ids])
    yes = raw.encode(" yes", add_special_tokens=False).ids[0]
    no = raw.encode(" no", add_special_tokens=False).ids[0]
    with torch.no_grad():
        logits = model(tokens).logits[0, -1]
    assert table["logit_diff"][0] == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)


@pytest.fixture(scope="module")
def in_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose tokenizer is written in Python: bytes are its tokens, and it has no tokenizer.json."""
    return of_bytes(tmp_path_factory.mktemp("bytes"), "llama")


def of_bytes(path: Path, architecture: str) -> Path:
    tokenizer = ByT5Tokenizer(chat_template=tiny.CHATML)
    tiny.hf_model(architecture, len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    assert not (path / "tokenizer.json").exists()
    return path


def test_a_checkpoint_without_the_file_has_the_tokenizer_that_transformers_builds(in_python: Path) -> None:
    """Without offsets of tokens in texts: what is marked, and what is read, are those of Hugging Face."""
    model = mi.load(in_python)
    assert not model.tokenizer.is_fast
    assert model.tokenizer_source == "ByT5Tokenizer (the checkpoint has no tokenizer.json)"
    chat = conversation()
    rendered = render(model, chat)
    whole = model.tokenizer.encode(rendered.text, add_special_tokens=False)
    assert list(rendered.tokens) == whole
    assert "".join(rendered.pieces) == rendered.text
    second = rendered.segments[1]
    assert "no thought" in model.tokenizer.decode(whole[second.start : second.stop])
    answers = mi.Answers(yes=("y",), no=("n",))
    logit_diff = mi.score(model, chat, mi.CLEAN, answers=answers)["logit_diff"].iloc[0]
    logits = reference.load(in_python)(torch.tensor([whole])).logits[0, -1]
    yes = model.tokenizer.encode("y", add_special_tokens=False)[0]
    no = model.tokenizer.encode("n", add_special_tokens=False)[0]
    assert logit_diff == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)


def test_what_transformers_builds_in_python_is_compared_with_the_file_too(tmp_path: Path) -> None:
    path = directory(tmp_path, byte_level(), "llama", "PreTrainedTokenizerFast")
    source = resolve(path)
    same, words = own_tokenizer(source, read_rules(source), ByT5Tokenizer())
    assert same.is_fast
    assert words.startswith("tokenizer.json; transformers' ByT5Tokenizer would split other tokens: ")


def test_a_tokenizer_without_words_is_refused(tmp_path: Path) -> None:
    """Of a qwen2 checkpoint transformers makes its family's tokenizer, here of no words, without a word."""
    with pytest.raises(ModelValidationError, match="writes 'yes' as no token"):
        mi.load(of_bytes(tmp_path, "qwen2"))
