"""Count things in every picture of a folder, eight at once: python examples/label_a_folder.py FOLDER THINGS [URL]"""

import asyncio
import sys
from pathlib import Path

from vlfleet import tasks
from vlfleet.client import AsyncClient
from vlfleet.errors import VlfleetError


async def main(folder: str, things: str, url: str = "http://127.0.0.1:8000") -> None:
    at_once = asyncio.Semaphore(8)
    async with AsyncClient(url) as client:

        async def label(path: Path) -> str:
            async with at_once:
                try:
                    return f"{path.name}\t{(await tasks.count(client, path, things)).count}"
                except VlfleetError as error:
                    return f"{path.name}\t{error.cause}"

        for line in await asyncio.gather(*map(label, sorted(Path(folder).glob("*.png")))):
            print(line)


asyncio.run(main(*sys.argv[1:]))
