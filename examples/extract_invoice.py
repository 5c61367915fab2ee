"""Fields of an invoice, as a type of your own: python examples/extract_invoice.py PICTURE [URL]"""

import asyncio
import sys

from pydantic import BaseModel

from vlfleet import tasks
from vlfleet.client import AsyncClient
from vlfleet.tasks.schemas import Money


class Invoice(BaseModel):
    company: str
    date: str
    total: Money  # "$1,225.50" becomes 1225.5


async def main(picture: str, url: str = "http://127.0.0.1:8000") -> None:
    async with AsyncClient(url) as client:
        try:
            found = await tasks.extract(client, picture, Invoice)
        except tasks.SchemaNotMetError as error:
            sys.exit(f"{error}\nthe model said: {error.raw}")
        print(f"{found.value.company}, {found.value.date}: {found.value.total:.2f}")


asyncio.run(main(*sys.argv[1:]))
