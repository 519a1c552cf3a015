"""How often a question is replied to, and how replies are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechint.chat.conversations import Conversation
from mechint.engine.replies import ReplyRequest
from mechint.interventions.specifications import CLEAN


@dataclass(frozen=True)
class Draws:
    """So many replies to each question, of at most so many tokens, at temperature 1 with nothing rare cut off."""

    samples: int
    max_new_tokens: int
    seed: int

    def requests(self, chats: Sequence[Conversation]) -> list[ReplyRequest]:
        """Return a request for each conversation, so that each is kept by itself."""
        return [
            ReplyRequest(
                chat, CLEAN, n=self.samples, max_new_tokens=self.max_new_tokens, temperature=1.0, seed=self.seed
            )
            for chat in chats
        ]
