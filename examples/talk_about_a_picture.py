"""Several questions about one picture, saved: python examples/talk_about_a_picture.py PICTURE OUT.json [URL]"""

import asyncio
import sys

from vlfleet.client import AsyncClient, Conversation


async def main(picture: str, out: str, url: str = "http://127.0.0.1:8000") -> None:
    async with AsyncClient(url) as client:
        talk = Conversation(client, temperature=0)
        answer = await talk.ask("What is the date?", picture)
        print(answer.text)
        async for piece in talk.stream("What is the total?"):  # the picture is shown already, and cached
            print(piece, end="", flush=True)
        print()
        spent = await talk.spent()
        print(f"{spent.visual} of {spent.total} tokens are the picture's")
        talk.save(out)
        again = Conversation.load(client, out)
        print(len(again.history.turns), "turns saved")


asyncio.run(main(*sys.argv[1:]))
