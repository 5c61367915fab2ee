"""What earlier runs have settled, and what this one has seen: by keys of 24 bytes, about 300 bytes a row."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlfleet.batch.journal import Output
from vlfleet.batch.lines import LineFile, foreign
from vlfleet.batch.record import key_of_record
from vlfleet.batch.request import ID_BYTES


@dataclass
class Known:
    """Rows by their keys. A row whose prompt or picture has changed since has another key, and is asked again."""

    done: dict[bytes, int] = field(default_factory=dict)
    """The place of each answer in the output."""
    by_content: dict[bytes, int] = field(default_factory=dict)
    """The place of an answer to each question that may be reused."""
    failed: dict[bytes, int] = field(default_factory=dict)
    """The offset of the last line of each row that failed and has no answer."""
    seen: dict[bytes, None] = field(default_factory=dict)
    """The rows of the source, in their order."""

    @classmethod
    def of(cls, output: Output, failures: LineFile) -> Known:
        """What stands in the files.

        Raises:
            VlfleetError: exit code 2, they hold something else.
        """
        known = cls()
        for place, record in output.records():
            try:
                known.add(key_of_record(record), place)
            except ValueError:
                raise foreign(output.path, len(known.done) + 1) from None
        for place, record in failures.records():
            try:
                known.failed[key_of_record(record)] = place
            except ValueError:
                raise foreign(failures.path, len(known.failed) + 1) from None
        for key in known.done.keys() & known.failed.keys():
            del known.failed[key]
        return known

    def add(self, key: bytes, place: int) -> None:
        """A row has its answer."""
        self.done[key] = place
        self.by_content.setdefault(key[ID_BYTES:], place)

    def replaced(self) -> list[int]:
        """Places of answers to what was asked earlier of rows that now ask something else. Call it when the whole
        source was seen."""
        unseen = [key for key in self.done if key not in self.seen]
        if not unseen:
            return []
        ids = {key[:ID_BYTES] for key in self.seen}
        return [self.done[key] for key in unseen if key[:ID_BYTES] in ids]

    def in_order(self) -> list[int]:
        """Places of all answers in the order of the source; those of rows that are no longer in it at the end."""
        ordered = [self.done[key] for key in self.seen if key in self.done]
        return ordered + [place for key, place in self.done.items() if key not in self.seen]
