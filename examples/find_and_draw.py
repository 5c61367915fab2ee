"""Find things, print where they are, and draw them: python examples/find_and_draw.py PICTURE THING OUT.png [URL]"""

import asyncio
import sys

from PIL import Image

from vlfleet import tasks
from vlfleet.client import AsyncClient


async def main(picture: str, thing: str, out: str, url: str = "http://127.0.0.1:8000") -> None:
    async with AsyncClient(url) as client:
        found = await tasks.ground(client, picture, thing)
    for box in found.boxes:  # in pixels of the file, whatever the model saw
        print(f"{box.label}: {box.x1:.0f},{box.y1:.0f} to {box.x2:.0f},{box.y2:.0f}")
    with Image.open(picture) as opened:
        tasks.draw(opened, found).save(out)


asyncio.run(main(*sys.argv[1:]))
