"""Server-sent events, cut where they end."""

from __future__ import annotations

DONE = b"data: [DONE]\n\n"
LONGEST_EVENT_BYTES = 8 << 20


class WholeEvents:
    """Passes on whole events only, so that whatever follows a broken stream begins on a line of its own."""

    def __init__(self) -> None:
        self.rest = b""
        self.done = False
        """The last event passed on was `[DONE]`."""

    def feed(self, chunk: bytes) -> bytes:
        """The events that are whole now; may be empty.

        Raises:
            ValueError: one event is longer than `LONGEST_EVENT_BYTES`.
        """
        data = self.rest + chunk if self.rest else chunk
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            self.rest = data
            if len(data) > LONGEST_EVENT_BYTES:
                raise ValueError(f"an event is longer than {LONGEST_EVENT_BYTES >> 20} MiB")
            return b""
        events, self.rest = data[:end], data[end:]
        self.done = events.endswith(DONE)
        return events
