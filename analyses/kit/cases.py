"""Cases: conversations under single conditions, read clean and injected, in chunks that are kept until a run ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit import resume
from analyses.kit.record import short_receipt

if TYPE_CHECKING:
    import pandas as pd

    from analyses.kit.study import Condition
    from analyses.kit.subject import Subject
    from mechint.attribution.reading import Reading
    from mechint.chat.conversations import Conversation

CLEAN, INJECTED = 0, 1  # rows of a reading


@dataclass(frozen=True)
class Case:
    """One conversation under one condition."""

    subject: Subject
    chat: Conversation
    condition: Condition

    def reading(self) -> Reading:
        """Return the conversation as it is read clean and injected."""
        from mechint.attribution.reading import Reading
        from mechint.interventions.specifications import CLEAN as NOTHING

        interventions = [NOTHING, self.condition.intervention]
        return Reading.of(self.subject.model, self.chat, interventions, batch_size=self.subject.config.batch_size)

    def chunk(self, rows: Callable[[Reading], pd.DataFrame], *dependencies: object) -> resume.Chunk:
        """Return the rows of its reading, with its columns, as a chunk that depends on the case and `dependencies`."""
        model, condition = self.subject.model, self.condition

        def compute() -> pd.DataFrame:
            reading = self.reading()
            table = rows(reading).assign(unit=condition.unit, series=condition.series)
            receipts = [short_receipt(receipt.to_dict()) for receipt in reading.prefilled.receipts]
            table.attrs = {"receipts": [receipt | {"model": model.name} for receipt in receipts]}
            return table

        key = resume.key(model, [condition.intervention], self.chat, condition.series, *dependencies)
        # Places in the whole are for shards, in which no cases are computed.
        return resume.Chunk(1, key, compute)
