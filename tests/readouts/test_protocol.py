"""The published protocol, step by step in plain Hugging Face, against the library: a prompt directory and GGUF vectors.

Message by message: render the conversation so far, fill the cache with what is new, steer every block of the range
while a marked message is filled; then drop the hooks and read the next-token probabilities.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from conftest import conversation
from repeng_files import write_like_repeng

import mechint as mi

STRENGTH, LAYERS = 6.0, range(1, 3)


def step_by_step(hf, tokenizer, chat: mi.Conversation, directions: dict[int, np.ndarray] | None) -> torch.Tensor:
    """Probabilities of the next token, filled as the published experiments describe."""
    from transformers import DynamicCache

    messages = [{"role": m.role, "content": m.content} for m in chat.messages]
    if tokenizer.chat_template.count("no system role"):
        messages = messages[1:]
    marks = [m.add_injection for m in chat.messages][-len(messages) :]
    cache, done, logits = DynamicCache(), 0, None
    for count in range(1, len(messages) + 1):
        if messages[count - 1]["role"] == "system":
            continue
        last = count == len(messages)
        ids = tokenizer.apply_chat_template(messages[:count], return_dict=False, continue_final_message=last)
        new = torch.tensor([ids[done:]])
        steer = marks[count - 1] and directions is not None
        where = range(new.shape[1])
        added = [reference.Addition(k, torch.tensor(directions[k]) * STRENGTH, where) for k in LAYERS] if steer else []
        with reference.added(hf, added):
            logits = hf(new, past_key_values=cache, use_cache=True).logits[0, -1]
        done = len(ids)
    return logits.double().softmax(-1)


@pytest.mark.parametrize("backend", ["bridge", "hooked"])
@pytest.mark.parametrize("arch", ["qwen2", "llama", "gemma2"])
def test_prompt_directory_and_gguf_vector(arch, backend, tiny_model, plain_hf, tmp_path):
    model, hf = tiny_model(arch, backend), plain_hf(arch)
    for label, question in (("one", "do you detect an injected thought?"), ("two", "yes or no?")):
        conversation(label, question).save(tmp_path / "prompts" / f"{label}.json")
    (tmp_path / "prompts" / "_order.json").write_text('["two", "one"]')
    rng = np.random.default_rng(1)
    directions = {k: rng.standard_normal(model.d_model).astype(np.float32) for k in range(1, model.n_layers)}
    directions = {k: v / np.linalg.norm(v) for k, v in directions.items()}
    write_like_repeng(tmp_path / "bread.gguf", directions)

    chats = mi.load_conversations(tmp_path / "prompts")
    steer = mi.Injection(mi.ConceptVector.load(tmp_path / "bread.gguf"), layers=LAYERS, strength=STRENGTH, name="bread")
    table = mi.score(model, chats, [mi.CLEAN, steer]).set_index(["conversation", "intervention"])
    yes = model.tokenizer(" yes", add_special_tokens=False)["input_ids"][0]
    no = model.tokenizer(" no", add_special_tokens=False)["input_ids"][0]
    assert [c.label for c in chats] == ["two", "one"]
    for chat in chats:
        rows = {}
        for name, vectors in (("clean", None), ("bread", directions)):
            rows[name] = step_by_step(hf, model.tokenizer, chat, vectors)
            assert table.p_yes[chat.label, name] == pytest.approx(rows[name][yes].item(), abs=1e-5)
            assert table.p_no[chat.label, name] == pytest.approx(rows[name][no].item(), abs=1e-5)
        assert (rows["bread"] - rows["clean"]).abs().max() > 1e-4
