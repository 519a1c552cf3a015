"""Extractions: where prompts are read, what a vector is against, and that what was usual has not changed by a bit."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import pytest
import tiny
import torch

import mechint as mi
from benchmarks import chat_templates
from mechint.base.errors import ChatTemplateError, UnknownConceptError, UsageError
from mechint.base.files import sha256
from mechint.chat.render import render
from mechint.chat.templates import TemplateOptions
from mechint.prompts.design import PromptDesign
from mechint.vectors import extract, extraction_inputs
from mechint.vectors.activations import chat
from mechint.vectors.contrast import paired_direction
from mechint.vectors.extraction import EXTRACTIONS, PRESETS, Extraction
from mechint.vectors.extraction_prompts import SENTENCE, concept_prompts, paired_prompts, reading

CONCEPTS = ["cats", "bread", "sea salt", "thoughts"]
METHODS = ("paired_pca", "mean_difference")
TEMPLATES = {**tiny.TEMPLATES, **chat_templates.sources()}


@pytest.fixture(scope="module")
def design() -> PromptDesign:
    """Short extraction prompts; each baseline message has words of its own in the concept's place."""
    full = PromptDesign.load("full")
    texts = replace(
        full.extraction,
        concept=("Tell me about {concept}.", "{concept}? Say a thing of it.", "I notice {concept} and the sea."),
        baseline=("Tell me about anything.", "No thought? Say a thing of it.", "I notice a system and the sea."),
        baseline_words=("sea", "model", "thought"),
        beginnings=("I", "The", "Yes"),
    )
    return replace(full, extraction=texts)


@dataclass(frozen=True)
class Source:
    """A tokenizer and its template's options, as models have them."""

    tokenizer: object
    template: TemplateOptions = TemplateOptions()  # noqa: RUF009


def with_template(name: str) -> Source:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATES[name]
    return Source(tokenizer)


def last_token_of(tokenizer, tokens: tuple[int, ...], text: str) -> int:
    """The position at which the decoded tokens have `text` for the last time."""
    decoded = [tokenizer.decode(list(tokens[: stop + 1])) for stop in range(len(tokens))]
    return next(at for at, head in enumerate(decoded) if head.count(text) == decoded[-1].count(text))


# ---- where prompts are read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_concept_is_read_where_a_search_in_the_decoded_tokens_has_it(name, design):
    source, texts = with_template(name), design.extraction.concept
    for word in CONCEPTS:
        for text, prompt in zip(texts, concept_prompts(design, [word]), strict=True):
            read = reading(source, prompt, "concept")
            head = text.partition("{concept}")[0] + word
            assert read.tokens == render(source, prompt.conversation).tokens
            assert read.positions == (last_token_of(source.tokenizer, read.tokens, head),)


@pytest.mark.parametrize("name", TEMPLATES)
def test_paired_messages_are_read_where_the_concept_would_stand(name, design):
    source = with_template(name)
    heads = ("Tell me about anything", "No thought", "I notice a system")
    for head, prompt in zip(heads, paired_prompts(design, [""]), strict=True):
        read = reading(source, prompt, "concept")
        assert read.positions == (last_token_of(source.tokenizer, read.tokens, head),)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_message_is_read_without_the_tokens_of_the_template(name, design):
    source = with_template(name)
    for prompt in concept_prompts(design, CONCEPTS):
        read = reading(source, prompt, "message")
        assert read.positions == tuple(range(read.positions[0], read.positions[-1] + 1))
        written = source.tokenizer.decode([read.tokens[at] for at in read.positions])
        assert written.strip() == prompt.conversation.messages[0].content
        assert reading(source, prompt, "reply").positions == (len(read.tokens) - 1,)


def test_the_word_is_that_of_the_slot_and_not_the_same_word_elsewhere(model, design):
    texts = replace(design.extraction, concept=("no cats, a thought of {concept}, no cats",), baseline=("no",))
    (prompt,) = concept_prompts(replace(design, extraction=texts), ["cats"])
    read = reading(model, prompt, "concept")
    head = "no cats, a thought of cats"
    assert read.positions == (last_token_of(model.tokenizer, read.tokens, head),)


def test_of_several_slots_the_last_is_read(model, design):
    texts = replace(design.extraction, concept=("{concept}: a thought of {concept}, yes",), baseline=("no",))
    (prompt,) = concept_prompts(replace(design, extraction=texts), ["cats"])
    assert prompt.conversation.messages[0].content == "cats: a thought of cats, yes"
    read = reading(model, prompt, "concept")
    assert read.positions == (last_token_of(model.tokenizer, read.tokens, "cats: a thought of cats"),)


def test_a_template_that_rewrites_messages_has_no_place_for_a_word(design):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.CHATML.replace("m['content']", "(m['content'] | upper)")
    prompt = concept_prompts(design, ["cats"])[0]
    with pytest.raises(ChatTemplateError, match="to the letter"):
        reading(Source(tokenizer), prompt, "concept")
    read = reading(Source(tokenizer), prompt, "message")
    assert tokenizer.decode([read.tokens[at] for at in read.positions]) == "TELL ME ABOUT CATS."


@pytest.mark.parametrize("read", ["concept", "message"])
def test_vectors_are_differences_of_what_hugging_face_has_there(read, model, plain_hf, design):
    extracted = extract.mean_difference(model, "cats", design, read=read)["cats"]
    hf = plain_hf("qwen2")

    def mean(words: list[str]) -> torch.Tensor:
        states = []
        for word in words:
            for text in design.extraction.concept:
                content = text.replace("{concept}", word)
                tokens = render(model.tokenizer, chat(content)).tokens
                hidden = torch.stack(hf(torch.tensor([tokens]), output_hidden_states=True).hidden_states[1:])[:, 0]
                end = last_token_of(model.tokenizer, tokens, content)
                begin = next(at for at in range(end) if model.tokenizer.decode(tokens[at : end + 1]) == content)
                word_end = last_token_of(model.tokenizer, tokens, text.partition("{concept}")[0] + word)
                states.append(hidden[:, word_end] if read == "concept" else hidden[:, begin : end + 1].mean(1))
        return torch.stack(states).mean(0)

    expected = mean(["cats"]) - mean(list(design.extraction.baseline_words))
    for layer in range(model.n_layers - 1):
        torch.testing.assert_close(extracted.vectors[layer], expected[layer], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("read", ["concept", "message"])
def test_pairs_read_in_the_message_have_no_beginning_of_the_reply(read, model, design):
    vectors = extract.paired_pca(model, ["cats"], design, read=read)
    other = replace(design, extraction=replace(design.extraction, beginnings=("About",)))
    assert vectors["cats"].fingerprint() == extract.paired_pca(model, ["cats"], other, read=read)["cats"].fingerprint()
    assert vectors["cats"].fingerprint() != extract.paired_pca(model, ["cats"], design)["cats"].fingerprint()


def test_a_text_is_read_at_its_full_stop_without_a_template(model, plain_hf, design):
    extracted = extract.extract(model, "cats", "open-introspection", design)["cats"]
    hf = plain_hf("qwen2")

    def state(word: str) -> torch.Tensor:
        tokens = model.tokenizer(SENTENCE.replace("{concept}", word))["input_ids"]
        assert model.tokenizer.decode(tokens[-1:]) == "."
        return torch.stack(hf(torch.tensor([tokens]), output_hidden_states=True).hidden_states[1:])[:, 0, -1]

    expected = state("cats") - torch.stack([state(word) for word in design.extraction.baseline_words]).mean(0)
    for layer in range(model.n_layers - 1):
        torch.testing.assert_close(extracted.vectors[layer], expected[layer], atol=1e-4, rtol=1e-4)
    assert (extracted.provenance["read"], extracted.provenance["left_out"]) == ("text", [])


# ---- what a vector is against ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["reply", "concept", "message"])
@pytest.mark.parametrize("method", METHODS)
def test_against_others_their_mean_is_subtracted(method, read, model, design):
    baseline = extract.extract(model, CONCEPTS, Extraction(method, read), design)
    for concept, vector in extract.extract(model, CONCEPTS, f"{method}/{read}/others", design).items():
        rest = [baseline[name] for name in CONCEPTS if name != concept]
        for layer in range(model.n_layers):
            expected = baseline[concept].vectors[layer] - torch.stack([r.vectors[layer] for r in rest]).mean(0)
            expected = expected / expected.norm() if method == "paired_pca" else expected
            torch.testing.assert_close(vector.vectors[layer], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_concept_is_no_baseline_of_its_own(preset, model, design):
    """And so its vector has the direction that it would have had, and is longer."""
    vectors = extract.extract(model, ["Sea", "cats", "model"], preset, design)
    fewer = replace(design, extraction=replace(design.extraction, baseline_words=("model", "thought")))
    for layer, vector in extract.extract(model, "Sea", preset, fewer)["Sea"].vectors.items():
        torch.testing.assert_close(vectors["Sea"].vectors[layer], vector)
    assert [vectors[name].provenance["left_out"] for name in ("Sea", "cats", "model")] == [["sea"], [], ["model"]]
    alone = replace(design, extraction=replace(design.extraction, baseline_words=("sea",)))
    with pytest.raises(UsageError, match="other words, too"):
        extract.extract(model, "sea", preset, alone)


@pytest.mark.parametrize("method", METHODS)
def test_a_fixed_list_makes_a_single_vector_the_same_in_any_company(method, model, design):
    extraction = Extraction(method, "concept", "others")
    together = extract.extract(model, CONCEPTS, extraction, design)
    for others in (CONCEPTS, CONCEPTS[:0:-1]):  # with the concept, and without it in another order
        alone = extract.extract(model, "cats", extraction, design, others=others)
        assert alone["cats"].fingerprint() == together["cats"].fingerprint()
        assert alone["cats"].provenance == together["cats"].provenance
    fewer = extract.extract(model, "cats", extraction, design, others=CONCEPTS[1:3])
    assert fewer["cats"].fingerprint() != together["cats"].fingerprint()


@pytest.mark.parametrize("method", METHODS)
def test_against_others_a_planted_direction_comes_out(method, model, design, monkeypatch):
    """Activations are a topic that all concepts share, three times as long as a direction of the concept's own."""
    words = [f"w{number}" for number in range(120)]
    generator = torch.Generator().manual_seed(0)
    topic = torch.eye(model.d_model)[0]
    directions = torch.randn(len(words), model.d_model, generator=generator) * (1 - topic)
    own_directions = dict(zip(words, torch.nn.functional.normalize(directions, dim=-1), strict=True))

    def planted(read_model, rows, positions):
        texts = [read_model.tokenizer.decode(list(row)) for row in rows]
        matches = [re.search(r"w\d+", text) for text in texts]
        streams = [3 * topic + own_directions[match[0]] if match else torch.zeros(model.d_model) for match in matches]
        noise = 0.01 * torch.randn(len(rows), model.d_model, generator=generator)
        return (torch.stack(streams) + noise).expand(model.n_layers, -1, -1)

    monkeypatch.setattr(extraction_inputs, "residuals_over", planted)
    for against, low, high in (("baseline", 0.0, 0.5), ("others", 0.99, 1.0)):
        others = words if against == "others" else None
        vectors = extract.extract(model, words[:4], Extraction(method, "reply", against), design, others=others)
        for word, vector in vectors.items():
            cosine = torch.nn.functional.cosine_similarity(vector.vectors[0], own_directions[word], dim=0).item()
            assert low < cosine <= high + 1e-6


# ---- names, and what is refused --------------------------------------------------------------------------------------


def test_names_and_all_combinations():
    assert len(EXTRACTIONS) == 12 == len(set(EXTRACTIONS))
    assert mi.extract.EXTRACTIONS is EXTRACTIONS
    assert [Extraction.parse(extraction.name) for extraction in EXTRACTIONS] == list(EXTRACTIONS)
    assert str(Extraction("mean_difference", "concept", "others")) == "mean_difference/concept/others"
    assert Extraction.parse("mean_difference") == Extraction("mean_difference", "reply", "baseline")
    assert [str(Extraction.parse(name)).rpartition("/")[0] for name in ("lindsey", "open-introspection")] == [
        "mean_difference/reply",
        "mean_difference/text",
    ]
    assert Extraction.parse("paired_pca/message") == Extraction("paired_pca", "message", "baseline")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("magic", "method 'magic'"),
        ("", "method ''"),
        ("paired_pca/head", "read 'head'"),
        ("paired_pca/text", "mean_difference/text"),
        ("paired_pca/reply/nothing", "against 'nothing'"),
        ("paired_pca/reply/others/x", "paired_pca/message/others"),
    ],
)
def test_an_extraction_that_is_none_is_refused(text, why, model, design):
    with pytest.raises(UsageError, match=why):
        extract.extract(model, ["cats"], text, design)


def test_others_that_are_too_few_or_play_no_part_are_refused(model, design):
    for concepts, others in (("cats", None), (["cats", "bread"], None), ("cats", ["bread", "cats"])):
        with pytest.raises(UsageError, match="two others or more"):
            extract.mean_difference(model, concepts, design, against="others", others=others)
    with pytest.raises(UsageError, match="leave others out"):
        extract.mean_difference(model, CONCEPTS, design, others=["bread", "sea"])
    with pytest.raises(UnknownConceptError):
        extract.mean_difference(model, CONCEPTS, design, against="others", others=["bread", "bread", "sea"])


@pytest.mark.parametrize("against", ["baseline", "others"])
@pytest.mark.parametrize("baseline", ["Tell of anything.", "Tell me about .", "Tell me about anything"])
def test_pairs_without_a_place_for_the_concept_are_refused(baseline, against, model, design):
    texts = replace(design.extraction, concept=("Tell me about {concept}.",), baseline=(baseline,))
    other = replace(design, extraction=texts)
    with pytest.raises(UsageError, match="mean_difference read at the concept, or paired_pca read at the reply"):
        extract.paired_pca(model, CONCEPTS, other, read="concept", against=against)
    extract.paired_pca(model, CONCEPTS[:1], other, read="message")
    extract.mean_difference(model, CONCEPTS[:1], other, read="concept")


@pytest.mark.parametrize("name", ["small", "full"])
def test_packaged_prompts_have_a_place_for_the_concept_in_every_pair(name):
    texts = PromptDesign.load(name).extraction
    prompts = paired_prompts(PromptDesign.load(name), ["x"])
    places = [prompt.conversation.messages[0].content[slice(*prompt.word)] for prompt in prompts]
    assert [c.replace("{concept}", p) for c, p in zip(texts.concept, places, strict=True)] == list(texts.baseline)
    assert all(places)


# ---- what is stored, and what was usual ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_stored_vectors_that_were_made_otherwise_are_not_taken(method, model, design, tmp_path, monkeypatch):
    computed: list[str] = []
    usual = extract._METHODS[method]

    def counted(inputs):
        computed.append(inputs.extraction.name)
        return usual(inputs)

    monkeypatch.setitem(extract._METHODS, method, counted)
    extractions = [extraction for extraction in EXTRACTIONS if extraction.method == method]
    first = {e: extract.extract(model, CONCEPTS, e, design, tmp_path)["cats"] for e in extractions}
    again = {e: extract.extract(model, CONCEPTS, e, design, tmp_path)["cats"] for e in extractions}
    assert computed == [extraction.name for extraction in extractions]
    assert [first[e].fingerprint() for e in extractions] == [again[e].fingerprint() for e in extractions]
    assert len({vector.fingerprint() for vector in first.values()}) == len(extractions)
    assert len({vector.provenance["key"] for vector in first.values()}) == len(extractions)
    for extraction, vector in again.items():
        assert [vector.provenance[name] for name in ("method", "read", "against")] == extraction.name.split("/")
        others = sorted(CONCEPTS[1:]) if extraction.against == "others" else []
        assert vector.provenance["others"] == others
    extract.extract(model, CONCEPTS[:3], f"{method}/reply/others", design, tmp_path)  # other others
    assert computed[len(extractions) :] == [f"{method}/reply/others"]


def frozen(model, design, method: str, concept: str) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    """Vectors and tokens as they were made before there was a choice of where to read, and against what."""
    texts = design.extraction

    def read(rows):
        parts = []
        for start in range(0, len(rows), 32):
            batch = [torch.tensor(row) for row in rows[start : start + 32]]
            at = torch.tensor([len(row) - 1 for row in batch])
            streams: list[torch.Tensor] = []

            def keep(activation, /, *, hook, at=at, streams=streams):
                streams.append(activation[torch.arange(len(activation)), at].clone())

            hooks = [(model.resid_post(layer), keep) for layer in range(model.n_layers)]
            model.forward(torch.nn.utils.rnn.pad_sequence(batch, batch_first=True), hooks=hooks)
            parts.append(torch.stack(streams).float().cpu())
        return torch.cat(parts, dim=1)

    def rows_of(messages, beginnings=("",)):
        return [render(model, chat(message, beginning)).tokens for message in messages for beginning in beginnings]

    def messages_of(words):
        return [text.replace("{concept}", word) for text in texts.concept for word in words]

    if method == "mean_difference":
        rows = read(rows_of(messages_of([concept]))).mean(1) - read(rows_of(messages_of(texts.baseline_words))).mean(1)
        return rows, rows_of(messages_of([concept, *texts.baseline_words]))
    concept_rows, baseline_rows = (
        rows_of(messages_of([concept]), texts.beginnings),
        rows_of(texts.baseline, texts.beginnings),
    )
    return paired_direction(read(concept_rows) - read(baseline_rows)), concept_rows + baseline_rows


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma2"])
@pytest.mark.parametrize("method", METHODS)
def test_the_usual_vectors_and_their_keys_are_bit_for_bit_what_they_were(method, architecture, tiny_model):
    model, design = tiny_model(architecture), PromptDesign.load("small")
    for concept, vector in extract.extract(model, ["cats", "sea salt"], method, design).items():
        rows, tokens = frozen(model, design, method, concept)
        expected = mi.ConceptVector(dict(enumerate(rows)), concept, model.n_layers)
        assert vector.fingerprint() == expected.fingerprint()
        key = sha256(model.identity.encode(), method.encode(), json.dumps(tokens).encode())
        assert vector.provenance["key"] == key
