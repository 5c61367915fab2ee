"""What the demo asks about the bundled pictures, with the right answers."""

from __future__ import annotations

from dataclasses import dataclass

from vlfleet.demo.expected import Expected, Fields, Number, WordAt

SERVED_MODEL_NAME = "vlfleet-demo"


@dataclass(frozen=True)
class Question:
    """A picture of demo/images, a question about it, and what a fleet must answer."""

    picture: str
    text: str
    expected: Expected


QUESTIONS = (
    Question(
        "invoice.png",
        "Extract the invoice number, date and total as JSON.",
        Fields({"invoice_number": "INV-2041", "date": "2026-11-21", "total": "225.50"}),
    ),
    Question("shapes.png", "How many shapes are there?", Number(7)),
    Question("word.png", "Read the word and give its bounding box as JSON.", WordAt("lantern", (78, 92, 256, 127))),
)
