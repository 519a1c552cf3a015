"""A judge behind any server that speaks the OpenAI chat protocol: vLLM, llama.cpp, a cloud.

Through httpx. The key comes from the environment (`OPENAI_API_KEY`) and goes into a header, nowhere else. Temperature
0, one JSON object back. A busy or failing server is tried again, later each time; an answer that is no verdict is
asked for once more and then is an error of that reply: nothing is ever guessed. Only prompt and reply are sent.

    judge = OpenAIJudge.at("http://localhost:8000/v1", model="Qwen/Qwen2.5-72B-Instruct")
    judge.estimate(items)            # requests and tokens, before anything is sent
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mechint.base.errors import PrerequisiteError, UsageError
from mechint.base.files import JSON, sha256
from mechint.trials.judges.questions import Questions, packaged_questions
from mechint.trials.verdicts import CLAIMS, Item, Verdict

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "OPENAI_API_KEY"
_BUSY = (408, 409, 429, 500, 502, 503, 504)
_CHARACTERS_A_TOKEN, _LONGEST_WAIT = 3.5, 60.0


@dataclass(frozen=True)
class Estimate:
    """What judging would take: requests, and tokens in and at most out."""

    requests: int
    tokens_in: int
    tokens_out: int

    def __str__(self) -> str:
        return f"{self.requests:,} requests, about {self.tokens_in:,} tokens in, {self.tokens_out:,} out at most"


@dataclass(frozen=True)
class OpenAIJudge:
    """Judges through `url` (up to "/v1") with a model of the server; `wait` sleeps between attempts."""

    url: str
    model: str
    questions: Questions = field(default_factory=packaged_questions)
    max_tokens: int = 300
    attempts: int = 6
    timeout: float = 60.0
    wait: Callable[[float], None] = field(default=time.sleep, compare=False, repr=False)

    @classmethod
    def at(cls, url: str, model: str | None = None) -> OpenAIJudge:
        """Return a judge at a server; without `model`, the only one that it serves.

        Raises UsageError for a server that cannot be reached or that serves several, PrerequisiteError without httpx.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"judge at {url!r}", "a URL such as http://localhost:8000/v1", "give the server's URL")
        return cls(url.rstrip("/"), model or _only_model(url.rstrip("/")))

    @property
    def name(self) -> str:
        """The judge's name: openai:MODEL; where it is served does not matter."""
        return f"openai:{self.model}"

    @property
    def version(self) -> str:
        """Hash of the model's name and the wording."""
        return sha256(self.model.encode(), self.questions.key.encode(), str(self.max_tokens).encode())[:16]

    def estimate(self, items: Sequence[Item]) -> Estimate:
        """Return what judging these will take, from the lengths of the texts."""
        characters = sum(len(message["content"]) for item in items for message in self._messages(item))
        return Estimate(len(items), round(characters / _CHARACTERS_A_TOKEN), self.max_tokens * len(items))

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict for each reply, one with `error` where the server gives none.

        Raises UsageError for a server that cannot be reached or refuses the key, before or in the middle of the run.
        """
        with _client(self.timeout) as client:
            return [self._verdict(client, item) for item in items]

    def _verdict(self, client: httpx.Client, item: Item) -> Verdict:
        problem = ""
        for _ in range(2):
            answer = self._post(client, item)
            if isinstance(answer, Verdict):
                return answer
            try:
                return parsed_verdict(answer)
            except UsageError as error:
                problem = error.given
        return Verdict("unclear", error=problem)

    def _post(self, client: httpx.Client, item: Item) -> JSON | Verdict:
        """Return the JSON that the server sends, a verdict with an error where it keeps failing."""
        import httpx

        body = {
            "model": self.model,
            "messages": self._messages(item),
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "response_format": {"type": "json_object"},
        }
        status = ""
        for attempt in range(self.attempts):
            if attempt:
                self.wait(min(2.0 ** (attempt - 1), _LONGEST_WAIT))
            try:
                response = client.post(f"{self.url}/chat/completions", json=body)
            except httpx.TimeoutException:
                status = "no answer in time"
                continue
            except httpx.TransportError as error:
                if attempt + 1 == self.attempts:
                    raise _unreachable(self.url, type(error).__name__) from None
                continue
            if response.status_code in _BUSY:
                status = f"status {response.status_code}"
                self.wait(_wished(response))
                continue
            return _content(response, self.url)
        return Verdict("unclear", error=f"the server gave no answer in {self.attempts} attempts ({status})")

    def _messages(self, item: Item) -> list[dict[str, str]]:
        framed = self.questions.framed(item, self.questions.json)
        return [{"role": "system", "content": self.questions.system}, {"role": "user", "content": framed}]


def parsed_verdict(data: JSON) -> Verdict:
    """Return the verdict that a judge's JSON object is; raises UsageError for anything else."""
    if not isinstance(data, dict):
        raise _no_verdict(str(data)[:80] if data is not None else "an answer that is no JSON object")
    claims, coherent, refused = (data.get("claims"), data.get("coherent"), data.get("refused"))
    if claims not in CLAIMS or not isinstance(coherent, bool) or not isinstance(refused, bool):
        raise _no_verdict(f"claims {claims!r}, coherent {coherent!r}, refused {refused!r}")
    named, first = data.get("named"), data.get("claim_first")
    confidence, reason = data.get("confidence"), data.get("reason")
    if not isinstance(named, str | None) or not isinstance(first, bool | None):
        raise _no_verdict(f"named {named!r}, claim_first {first!r}")
    number = float(confidence) if isinstance(confidence, int | float) and 0 <= confidence <= 1 else None
    name = named.strip() or None if named and claims == "yes" else None
    return Verdict(
        claims=claims,  # type: ignore[arg-type]  # one of CLAIMS
        named=name,
        claim_first=first if name else None,
        refused=refused,
        coherent=coherent,
        confidence=number,
        reason=reason if isinstance(reason, str) else "",
    )


def _content(response: httpx.Response, url: str) -> JSON:
    """Return the JSON in a response; None where it has none or was cut off."""
    if response.status_code in (401, 403):
        raise UsageError(
            given=f"{url} refuses the key (status {response.status_code})",
            allowed=f"a key that it knows, in the environment variable {KEY_VARIABLE}",
            advice=f"set {KEY_VARIABLE}",
        )
    if response.status_code >= 400:
        raise UsageError(
            given=f"{url} answers with status {response.status_code}: {response.text[:200]}",
            allowed="a server of the OpenAI chat protocol that serves this model",
            advice="check the URL and the model's name",
        )
    try:
        choice = response.json()["choices"][0]
        text = str(choice["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    if choice.get("finish_reason") == "length":
        return "an answer that was cut off"
    try:
        data: JSON = json.loads(text[text.find("{") : text.rfind("}") + 1])
    except ValueError:
        return f"no JSON: {text[:60]}"
    return data


def _wished(response: httpx.Response) -> float:
    """Seconds that a busy server asks to wait."""
    try:
        return min(max(float(response.headers.get("retry-after", "0")), 0.0), _LONGEST_WAIT)
    except ValueError:
        return 0.0


def _client(timeout: float) -> httpx.Client:
    try:
        import httpx
    except ImportError as error:
        raise PrerequisiteError(
            given="a judge behind a server needs httpx, which is not installed",
            allowed="mechint with the extra `judges`",
            advice="pip install 'mechint[judges]'",
        ) from error
    key = os.environ.get(KEY_VARIABLE)
    headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(timeout=timeout, headers=dict(headers))


def _only_model(url: str) -> str:
    with _client(10.0) as client:
        import httpx

        try:
            served = client.get(f"{url}/models").json()["data"]
            names = [str(entry["id"]) for entry in served]
        except httpx.HTTPError as error:
            raise _unreachable(url, type(error).__name__) from None
        except (ValueError, KeyError, TypeError):
            names = []
    if len(names) != 1:
        raise UsageError(
            given=f"{url} serves {len(names)} models{': ' + ', '.join(names[:8]) if names else ''}",
            allowed="one model, or its name",
            advice="name it: openai:URL#MODEL",
        )
    return names[0]


def _unreachable(url: str, problem: str) -> UsageError:
    return UsageError(
        given=f"{url} cannot be reached ({problem})",
        allowed="a server that runs",
        advice="start it or correct the URL; verdicts that are stored are kept, and the run goes on from there",
    )


def _no_verdict(given: str) -> UsageError:
    return UsageError(given=f"no verdict: {given}", allowed="the keys of a verdict", advice="use another judge")
