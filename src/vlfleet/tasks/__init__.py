"""What people do with pictures: read, extract, find, count, parse, solve, describe. Built on the client alone."""

from vlfleet.tasks.design import Design, design_to_html, screenshot
from vlfleet.tasks.draw import draw
from vlfleet.tasks.extract import Extraction, SchemaNotMetError, extract
from vlfleet.tasks.page import Block, Page, parse
from vlfleet.tasks.place_tasks import count, ground, point, spot
from vlfleet.tasks.result import Box, Count, Located, Point, Solution, Text
from vlfleet.tasks.schemas import Invoice, Receipt
from vlfleet.tasks.text_tasks import caption, ocr, solve, video_qa

__all__ = [
    "Block",
    "Box",
    "Count",
    "Design",
    "Extraction",
    "Invoice",
    "Located",
    "Page",
    "Point",
    "Receipt",
    "SchemaNotMetError",
    "Solution",
    "Text",
    "caption",
    "count",
    "design_to_html",
    "draw",
    "extract",
    "ground",
    "ocr",
    "parse",
    "point",
    "screenshot",
    "solve",
    "spot",
    "video_qa",
]
