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
        Fields({"invoice_number": "", "date": "", "total": ""}),
    ),
    Question("shapes.png", "How many shapes are there?", Number(0)),
    Question("word.png", "Read the word and give its bounding box as JSON.", WordAt("", (0, 0, 1, 1))),
)
