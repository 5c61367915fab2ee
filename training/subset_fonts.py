"""Cut every text face under a folder down to ASCII plus two currency signs: `subset_fonts.py FONTS OUT`."""

from __future__ import annotations

import pathlib
import re
import sys

from fontTools import subset  # type: ignore[import-untyped, import-not-found, unused-ignore]
from fontTools.ttLib import TTFont  # type: ignore[import-untyped, import-not-found, unused-ignore]

CHARACTERS = "".join(map(chr, range(0x20, 0x7F))) + "£€"
# Faces that no one would set a word or an invoice in, or that PIL would draw the same as a sibling.
UNWANTED = re.compile(
    r"symbol|dingbat|math|ExtraLight|Thin|Hairline|Black|ExtraBold|Outline|Shadow|caps|smallcap|\bSC\b|Initials|"
    r"Oblique|Titling|Swash|Scanlines|Chancery|qcr|qzc|lmcsc|lmtcsc|lmcr|lmu|lmvtt|lmssq|lmroman(?!10)|lmsans(?!10)|"
    r"lmmono(?!10)|Ornament|Z003|D050000L|StandardSymbols|Italic.*\[|Variable|VF|08-|12-|Unslanted|Display_|Keyboard",
    re.IGNORECASE,
)


def family(font: TTFont) -> str:
    names = font["name"]
    return str(names.getDebugName(16) or names.getDebugName(1))


def main(source: pathlib.Path, target: pathlib.Path) -> None:
    seen: set[str] = set()
    for path in sorted([*source.rglob("*.ttf"), *source.rglob("*.otf")]):
        # The OpenType and TrueType copies of a face look the same: keep the first.
        stem = re.sub(r"[^A-Za-z0-9]+", "", path.stem)
        if UNWANTED.search(path.stem) or stem in seen:
            continue
        font = TTFont(path)
        have = font.getBestCmap() or {}
        if "fvar" in font or any(ord(c) not in have for c in CHARACTERS[:95]):
            continue
        seen.add(stem)
        options = subset.Options(layout_features=["kern"], hinting=False, notdef_outline=True, name_IDs=[1, 2, 16, 17])
        cutter = subset.Subsetter(options)
        cutter.populate(text=CHARACTERS)
        cutter.subset(font)
        folder = target / re.sub(r"[^A-Za-z0-9]+", "_", family(font))
        folder.mkdir(parents=True, exist_ok=True)
        font.save(folder / (stem + path.suffix))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
