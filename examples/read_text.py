"""Read all text of a picture: python examples/read_text.py PICTURE [URL]"""

import asyncio
import sys

from vlfleet import tasks
from vlfleet.client import AsyncClient


async def main(picture: str, url: str = "http://127.0.0.1:8000") -> None:
    async with AsyncClient(url) as client:
        read = await tasks.ocr(client, picture)
        print(read.text)
        if not read.complete:
            print("(cut off: give max_tokens)", file=sys.stderr)


asyncio.run(main(*sys.argv[1:]))
