"""Wordings kept out of training, by `questions` task: how well the model understands a question it never met."""

from __future__ import annotations

UNSEEN: dict[str, tuple[str, ...]] = {
    "number": ("What is the value of the number in this image?", "Which number is written in the photo?",
    "Could you tell me what number this is?", "I need the number from this picture."),
    "word": ("Which word is written in the photo?", "Could you tell me what word this is?",
    "I need the word from this picture.", "What's the word?"),
    "colour": ("Could you tell me the color of the shape?", "What color does the object have?",
    "I would like to know the color of the shape.", "Which color is this shape?"),
    "shape": ("Could you tell me which shape this is?", "What is the name of this shape?",
    "What shape can you see in the image?", "Which shape is shown here?"),
    "count": ("How many shapes in total are there?", "Could you count the shapes for me?",
    "How many different objects are in this picture?", "I want to know how many shapes there are."),
    "field_invoice_number": ("Could you tell me the invoice number?", "What invoice number is on this document?",
    "I need the invoice number, please."),
    "field_date": ("On what date was the invoice issued?", "Could you tell me the date?",
    "What is the date of this invoice?"),
    "field_total": ("What is the total sum to pay?", "Could you tell me the total?", "How much money is due?",
    "What does it cost in total?"),
}  # fmt: skip
