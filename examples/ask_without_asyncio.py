"""A question from an ordinary program: python examples/ask_without_asyncio.py PICTURE QUESTION [URL]"""

import sys

from vlfleet.client import Client

picture, question, url = (*sys.argv[1:], "http://127.0.0.1:8000")[:3]
with Client(url) as client:
    answer = client.ask(question, picture, temperature=0)
    print(answer.text)
    print(f"{answer.usage.prompt_tokens} tokens in, {answer.usage.completion_tokens} out", file=sys.stderr)
