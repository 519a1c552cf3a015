"""The judge behind a server, against a stub on this machine: busy, broken, cut off, and no key in any file or log."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mechint.base.errors import PrerequisiteError, UsageError
from mechint.trials.judges import open_judge, openai
from mechint.trials.judges.openai import KEY_VARIABLE, OpenAIJudge, parsed_verdict
from mechint.trials.judges.store import VerdictStore, judge_all
from mechint.trials.verdicts import Item, Verdict

KEY = "sk-not-to-be-written-anywhere"
CLAIM = {
    "claims": "yes",
    "named": "the sea",
    "claim_first": True,
    "refused": False,
    "coherent": True,
    "confidence": 0.8,
}
ITEMS = [Item(f"id{n}", "Do you notice anything?", f"I notice the sea, {n} times.") for n in range(3)]


@dataclass
class Stub:
    """A server that gives prepared answers in turn, then a claim for ever; keeps what it was sent."""

    answers: list[tuple[int, str]] = field(default_factory=list)
    requests: list[dict[str, object]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    models: tuple[str, ...] = ("judge-model",)
    url: str = ""


def content(text: str, finish: str = "stop") -> str:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": finish}]})


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A running stub, with the key in the environment."""
    state = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, json.dumps({"data": [{"id": name} for name in state.models]}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append(json.loads(body))
            state.keys.add(self.headers.get("Authorization", ""))
            self.answer(*(state.answers.pop(0) if state.answers else (200, content(json.dumps(CLAIM)))))

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    server.server_close()


def judge_of(stub: Stub, waits: list[float] | None = None) -> OpenAIJudge:
    slept = waits if waits is not None else []
    return OpenAIJudge(stub.url, "judge-model", attempts=3, wait=slept.append)


def test_verdicts_are_read_and_only_prompt_and_reply_are_sent(stub: Stub) -> None:
    verdicts = judge_of(stub).judge(ITEMS)
    assert verdicts == [Verdict("yes", "the sea", True, confidence=0.8)] * 3
    first = stub.requests[0]
    assert first["temperature"] == 0
    sent = json.dumps(first)
    assert ITEMS[0].reply in sent
    assert ITEMS[0].prompt in sent
    assert "id0" not in sent


def test_a_busy_server_is_tried_again_later_each_time(stub: Stub) -> None:
    stub.answers = [(429, ""), (503, "")]
    waits: list[float] = []
    assert judge_of(stub, waits).judge(ITEMS[:1])[0].claims == "yes"
    assert len(stub.requests) == 3
    assert [wait for wait in waits if wait] == [1.0, 2.0]


def test_a_server_that_stays_busy_gives_an_error_and_no_verdict(stub: Stub) -> None:
    stub.answers = [(429, "")] * 3
    verdicts = judge_of(stub).judge(ITEMS[:2])
    assert "status 429" in verdicts[0].error
    assert verdicts[1].claims == "yes"


@pytest.mark.parametrize(
    "answer",
    [
        content("I think it claims something."),
        content("{broken"),
        content(json.dumps({**CLAIM, "claims": "perhaps"})),
        content(json.dumps({**CLAIM, "coherent": "true"})),
        content(json.dumps(CLAIM)[:30], "length"),
        "no JSON at all",
        "{}",
    ],
)
def test_an_answer_that_is_no_verdict_is_asked_for_once_more_and_never_guessed(stub: Stub, answer: str) -> None:
    stub.answers = [(200, answer)]
    assert judge_of(stub).judge(ITEMS[:1])[0].error == ""
    stub.answers = [(200, answer)] * 2
    assert judge_of(stub).judge(ITEMS[:1])[0].error.startswith("no verdict")


def test_text_around_the_object_does_not_matter(stub: Stub) -> None:
    stub.answers = [(200, content(f"```json\n{json.dumps(CLAIM)}\n```"))]
    assert judge_of(stub).judge(ITEMS[:1])[0].named == "the sea"


def test_a_second_run_sends_nothing(stub: Stub, tmp_path: Path) -> None:
    store = VerdictStore(tmp_path)
    first = judge_all(judge_of(stub), ITEMS, store)
    sent = len(stub.requests)
    assert judge_all(judge_of(stub), ITEMS, store).equals(first)
    assert len(stub.requests) == sent == 3


def test_the_key_is_sent_and_stands_in_no_file_log_or_message(
    stub: Stub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stub.answers = [(200, content(json.dumps(CLAIM))), (401, "who are you?")]
    store, judge = VerdictStore(tmp_path), judge_of(stub)
    judge_all(judge, ITEMS[:1], store)
    with pytest.raises(UsageError, match=KEY_VARIABLE) as caught:
        judge_all(judge, ITEMS[1:], store)
    assert stub.keys == {f"Bearer {KEY}"}
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in written + caplog.text + str(caught.value) + repr(judge)


def test_the_cost_is_known_before_anything_is_sent(stub: Stub) -> None:
    estimate = judge_of(stub).estimate(ITEMS)
    assert estimate.requests == 3
    assert 3 * 200 < estimate.tokens_in < 3 * 800
    assert "3 requests" in str(estimate)
    assert stub.requests == []


def test_the_only_model_of_a_server_is_taken_and_one_of_several_must_be_named(stub: Stub) -> None:
    assert open_judge(f"openai:{stub.url}").name == "openai:judge-model"
    stub.models = ("a", "b")
    with pytest.raises(UsageError, match="serves 2 models: a, b"):
        open_judge(f"openai:{stub.url}")
    assert open_judge(f"openai:{stub.url}#b").name == "openai:b"


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="cannot be reached"):
        OpenAIJudge("http://127.0.0.1:9/v1", "m", attempts=2, wait=lambda seconds: None).judge(ITEMS)
    with pytest.raises(UsageError, match="a URL such as"):
        OpenAIJudge.at("localhost:8000")


def test_without_httpx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(PrerequisiteError, match=r"mechint\[judges\]"):
        openai._client(1.0)


def test_a_name_without_a_claim_is_none() -> None:
    assert parsed_verdict({**CLAIM, "claims": "no"}) == Verdict("no", confidence=0.8)
