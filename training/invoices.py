"""Draw invoices and receipts of many layouts, keeping every line and the fields that questions are about."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from training import fonts, strings
from training.drawing import RGB, Item, Scene, canvas_size, pixel_unit, text_box
from training.fonts import Split

NUMBER_LABELS = (
    "Invoice No",
    "Invoice No.",
    "Invoice Number",
    "Invoice #",
    "No",
    "No.",
    "Number",
    "Invoice",
    "Ref",
    "Inv. No.",
    "INVOICE NO",
    "Bill No",
    "Document No",
)
DATE_LABELS = ("Date", "Date", "Invoice Date", "Issued", "Date of issue", "DATE", "Issue date", "Billing date")
TOTAL_LABELS = (
    "Total",
    "TOTAL",
    "Total due",
    "Amount due",
    "Grand total",
    "Balance due",
    "Amount Due",
    "Total Due",
    "Total amount",
    "To pay",
    "Sum total",
    "GRAND TOTAL",
)
DUE_LABELS = ("Due date", "Due", "Payment due", "Pay by")
SUBTOTAL_LABELS = ("Subtotal", "Sub-total", "Net", "SUBTOTAL", "Net amount")
TAX_LABELS = ("Tax", "VAT 19%", "VAT 20%", "Sales tax", "VAT", "GST 10%")
TITLES = ("INVOICE", "Invoice", "INVOICE", "Tax Invoice", "Bill", "RECEIPT", "Receipt", "Sales Invoice", "STATEMENT")
HEADINGS = (
    ("Item", "Amount"),
    ("Description", "Price"),
    ("Description", "Total"),
    ("Product", "Sum"),
    ("Service", "Amount"),
)
FOOTERS = (
    "Thank you!",
    "Thank you for your business.",
    "Payable within 30 days.",
    "Thank you for your order",
    "Goods remain our property until paid.",
    "Please come again",
    "No refunds",
)
STREETS = ("Street", "Road", "Avenue", "Lane", "Square", "Way")


class Sheet:
    """A page being written from top to bottom; remembers the lines in reading order."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self.rng, self.split = rng, split
        while True:
            width, height = canvas_size(rng, smallest_pixels=95000, widest=0.45)
            if 0.55 < width / height < 1.45:
                break
        self.width, self.height, self.unit = width, height, pixel_unit(width, height)
        level = rng.randint(225, 255)
        paper: RGB = (level, level, max(200, level - rng.choice((0, 0, 0, 12, 20))))
        self.image = Image.new("RGB", (width, height), paper)
        self.draw = ImageDraw.Draw(self.image)
        dark = rng.randint(0, 60)
        self.ink: RGB = (dark, dark, dark)
        self.accent: RGB = (
            self.ink if rng.random() < 0.5 else (rng.randint(0, 170), rng.randint(0, 110), rng.randint(0, 170))
        )
        self.face = fonts.pick_face(rng, split)
        self.title_face = self.face if rng.random() < 0.5 else fonts.pick_face(rng, split)
        self.left = rng.uniform(0.03, 0.09) * width
        self.right = width - self.left
        self.y = rng.uniform(0.02, 0.06) * height
        self.pixels = rng.uniform(14.5, 19.0) * self.unit
        self.leading = rng.uniform(1.2, 1.6)
        self.scene = Scene("invoice", self.image, self.unit)

    def font(self, scale: float = 1.0, title: bool = False) -> object:
        return fonts.load(self.title_face if title else self.face, max(8, round(self.pixels * scale)))

    def fits(self, lines: float) -> bool:
        return self.y + lines * self.pixels * self.leading < self.height * 0.985

    def write(
        self,
        text: str,
        x: float,
        scale: float = 1.0,
        title: bool = False,
        anchor: str = "left",
        colour: RGB | None = None,
    ) -> Item:
        """Write one string at the present height, shrunk if the page is too narrow; returns it with its box."""
        font = self.font(scale, title)
        box = text_box(self.draw, (0, 0), text, font)
        room = (self.right - self.left) / max(1.0, box[2])
        if room < 1:
            font = self.font(scale * room * 0.98, title)
            box = text_box(self.draw, (0, 0), text, font)
        if anchor == "right":
            x -= box[2]
        elif anchor == "middle":
            x -= box[2] / 2
        self.draw.text((x, self.y), text, font=font, fill=colour or self.ink)  # type: ignore[arg-type, unused-ignore]
        return Item(text, text_box(self.draw, (x, self.y), text, font))

    def line(self, *parts: Item, scale: float = 1.0) -> None:
        """End a line made of PARTS, left to right, and go to the next."""
        boxes = [part.box for part in parts]
        whole = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
        self.scene.texts.append(Item(" ".join(part.text for part in parts), whole))
        self.y += self.pixels * scale * self.leading

    def skip(self, lines: float) -> None:
        self.y += lines * self.pixels

    def rule(self) -> None:
        y = self.y - 0.05 * self.pixels
        self.draw.line(
            (self.left, y, self.right, y), fill=self.accent, width=max(1, round(self.unit * self.rng.uniform(0.8, 2)))
        )
        self.y += 0.35 * self.pixels

    def pair(self, label: str, value: str, style: str, shown: str = "", scale: float = 1.0) -> Item:
        """Write "label value" in one of the sheet's styles; SHOWN is printed for VALUE (with a currency, say)."""
        shown = shown or value
        if style == "inline":
            item = self.write(f"{label}{shown}" if label.endswith((" ", "#")) else f"{label} {shown}", self.left, scale)
            self.line(item, scale=scale)
            return Item(value, item.box)
        if style == "inline-right":
            item = self.write(f"{label} {shown}", self.right, scale, anchor="right")
            self.line(item, scale=scale)
            return Item(value, item.box)
        start = self.left if style != "right-block" else self.left + 0.42 * (self.right - self.left)
        width = text_box(self.draw, (0, 0), f"{label}  {shown}", self.font(scale))[2]
        if start + width > self.right:
            return self.pair(label, value, "inline", shown, scale * min(1.0, (self.right - self.left) / width))
        first = self.write(label, start, scale)
        if style == "column":
            second = self.write(
                shown, max(first.box[2] + 0.6 * self.pixels, self.left + 0.42 * (self.right - self.left)), scale
            )
        else:
            second = self.write(shown, self.right, scale, anchor="right")
        self.line(first, second, scale=scale)
        return Item(value, second.box)


def invoice_scene(rng: random.Random, split: Split) -> Scene:
    """Return a picture of an invoice or receipt with fields invoice_number, date, total, and often vendor, due_date."""
    sheet = Sheet(rng, split)
    fields = sheet.scene.fields
    vendor = strings.company(rng, split)
    centred = rng.random() < 0.25
    title = rng.choice(TITLES)

    def head(text: str, scale: float, large: bool) -> Item:
        if centred:
            item = sheet.write(
                text, (sheet.left + sheet.right) / 2, scale, large, "middle", sheet.accent if large else None
            )
        else:
            item = sheet.write(text, sheet.left, scale, large, colour=sheet.accent if large else None)
        sheet.line(item, scale=scale)
        return item

    title_first = rng.random() < 0.5
    if title_first:
        head(title, rng.uniform(1.1, 2.0), True)
    if rng.random() < 0.8:
        fields["vendor"] = head(vendor, rng.uniform(1.0, 1.5), True)
        if rng.random() < 0.45:
            head(
                f"{rng.randint(1, 199)} {rng.choice(strings.english(split)).capitalize()} {rng.choice(STREETS)}",
                1.0,
                False,
            )
    if not title_first and rng.random() < 0.75:
        head(title, rng.uniform(1.0, 1.8), True)
    sheet.skip(rng.uniform(0.1, 0.8))
    if rng.random() < 0.3:
        sheet.rule()

    colon = ":" if rng.random() < 0.65 else ""
    style = rng.choice(("inline", "inline", "column", "spread", "right-block", "inline-right"))
    meta = ["number", "date"]
    if rng.random() < 0.3:
        meta.reverse()
    if rng.random() < 0.25:
        meta.insert(rng.choice((0, 2)) if rng.random() < 0.2 else 2, "due")
    if rng.random() < 0.3:
        meta.insert(rng.choice((0, len(meta))), "customer")
    for entry in meta:
        if entry == "number":
            label = rng.choice(NUMBER_LABELS)
            value = strings.invoice_number(rng, split)
            joined = label if label.endswith("#") and rng.random() < 0.5 else label + colon
            fields["invoice_number"] = sheet.pair(joined, value, style)
        elif entry == "date":
            fields["date"] = sheet.pair(rng.choice(DATE_LABELS) + colon, strings.date(rng), style)
        elif entry == "due":
            fields["due_date"] = sheet.pair(rng.choice(DUE_LABELS) + colon, strings.date(rng), style)
        else:
            name = (
                rng.choice(strings.english(split)).capitalize() + " " + rng.choice(strings.english(split)).capitalize()
            )
            fields["customer"] = sheet.pair(
                rng.choice(("Customer", "Bill to", "Client", "Sold to")) + colon, name, style
            )
    sheet.skip(rng.uniform(0.2, 0.9))

    symbol = rng.choice(("$", "$", "€", "£", "", "", "USD ", "EUR "))
    thousands = rng.random() < 0.5
    ruled = rng.random() < 0.5
    if rng.random() < 0.4 and sheet.fits(6):
        first, second = rng.choice(HEADINGS)
        sheet.line(sheet.write(first, sheet.left), sheet.write(second, sheet.right, anchor="right"))
    if ruled:
        sheet.rule()
    total = 0.0
    row_symbol = symbol if rng.random() < 0.3 else ""
    for _ in range(rng.randint(0, 5)):
        if not sheet.fits(5):
            break
        price = strings.amount(rng)
        total += price
        goods = rng.choice(strings.english(split)).capitalize()
        if rng.random() < 0.3 and len(goods) < 9:
            goods += " " + rng.choice(strings.english(split))
        if rng.random() < 0.3:
            goods = f"{rng.randint(1, 12)} x {goods}"
        shown = row_symbol + strings.money(price, thousands)
        if text_box(sheet.draw, (0, 0), f"{goods}  {shown}", sheet.font())[2] > sheet.right - sheet.left:
            goods = goods.split()[-1][:6]
        sheet.line(sheet.write(goods, sheet.left), sheet.write(shown, sheet.right, anchor="right"))
    total = total or strings.amount(rng)
    if ruled:
        sheet.rule()
    tail = "spread" if style in ("column", "inline") and rng.random() < 0.7 else style
    if rng.random() < 0.35 and sheet.fits(4):
        tax = round(total * rng.choice((0.05, 0.1, 0.19, 0.2)), 2)
        sheet.pair(
            rng.choice(SUBTOTAL_LABELS) + colon,
            strings.money(total, thousands),
            tail,
            symbol + strings.money(total, thousands),
        )
        sheet.pair(
            rng.choice(TAX_LABELS) + colon, strings.money(tax, thousands), tail, symbol + strings.money(tax, thousands)
        )
        total += tax
    printed = strings.money(total, thousands)
    fields["total"] = sheet.pair(
        rng.choice(TOTAL_LABELS) + colon, printed, tail, symbol + printed, rng.choice((1.0, 1.0, 1.15, 1.3))
    )
    if rng.random() < 0.3 and sheet.fits(2):
        sheet.skip(0.5)
        head(rng.choice(FOOTERS), 0.95, False)
    if sheet.y > sheet.height * 1.005:
        # The page was too short for what chance put on it.
        return invoice_scene(rng, split)
    return sheet.scene
