"""The loop of `vlfleet chat`: lines in, answers out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from vlfleet.cli.chat_line import COMMANDS, Line, completions, path_of, printable, read_line
from vlfleet.cli.options import note
from vlfleet.client import Answer, AsyncClient, Conversation
from vlfleet.client.sources import usage_error
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.home import home

HISTORY_LINES = 1000


class Session:
    """One conversation, and what will be shown with its next question."""

    def __init__(self, client: AsyncClient, conversation: Conversation, options: dict[str, Any]) -> None:
        self.client, self.conversation, self.options = client, conversation, options
        self.images: list[str] = []
        self.videos: list[str] = []

    @classmethod
    async def open(cls, client: AsyncClient, system: str, load: Path | None, options: dict[str, Any]) -> Session:
        """
        Raises:
            VlfleetError: no server, or no such conversation.
        """
        from vlfleet.tasks.prompt import prompts_for

        try:
            info = await client.model_info()
            options = {**options, "summarise": prompts_for(client.model or info.id).summarises}
            if load:
                conversation = Conversation.load(client, load, **options)
            else:
                conversation = Conversation(client, system=system, **options)
            spent = await conversation.spent()
        except BaseException:
            await client.close()
            raise
        note(f"{info.id} at {client.base_url}, {spent.budget:,} tokens; /help lists commands, Ctrl-D ends")
        return cls(client, conversation, options)

    def run(self, runner: asyncio.Runner, images: list[str]) -> None:
        """Until the input ends. What goes wrong with one line is told, and the next one is read.

        Raises:
            VlfleetError: the input is no terminal, and a line of it failed.
        """
        interactive = sys.stdin.isatty()
        remember = prepare_terminal() if interactive else lambda: None
        try:
            self.show(images, [])
            while (line := self.next_line(interactive)) is not None:
                try:
                    if not runner.run(self.do(read_line(line))):
                        break
                except KeyboardInterrupt:
                    note("(stopped)")
                except VlfleetError as error:
                    if not interactive:
                        raise
                    note(f"error: {error.cause}" + (f"\nremedy: {error.remedy}" if error.remedy else ""))
        finally:
            remember()

    def next_line(self, interactive: bool) -> str | None:
        """What was typed; None at the end."""
        while True:
            try:
                return input("> " if interactive else "")
            except EOFError:
                if interactive:
                    note("")
                return None
            except KeyboardInterrupt:
                note("\n(Ctrl-D or /quit ends)")

    async def do(self, line: Line) -> bool:
        """Does what a line says; False when it says to end.

        Raises:
            VlfleetError: it cannot be done.
        """
        if line.command == "/quit":
            return False
        if line.command:
            await self.command(line)
        elif line.text:
            await self.ask(line.text, [*self.images, *line.images], [*self.videos, *line.videos])
        else:
            self.show([*line.images], [*line.videos])
        return True

    def show(self, images: list[str], videos: list[str]) -> None:
        """Keeps media for the next question."""
        for path in (*images, *videos):
            note(f"{printable(path)} goes with your next question")
        self.images += images
        self.videos += videos

    async def ask(self, question: str, images: list[str], videos: list[str]) -> None:
        stream = self.conversation.stream(question, images, videos)
        shown = False
        try:
            async with aclosing(stream.__aiter__()) as pieces:
                async for piece in pieces:
                    sys.stdout.write(printable(piece))
                    sys.stdout.flush()
                    shown = True
        except asyncio.CancelledError:
            if not stream.answer.text:
                note("")  # behind the terminal's ^C
            raise
        except VlfleetError as error:
            shown = shown or error.exit_code == ExitCode.USAGE  # such a picture would spoil the next question, too
            raise
        finally:
            if shown:
                self.images, self.videos = [], []
            if stream.answer.text:
                sys.stdout.write("\n")
                sys.stdout.flush()
        await self.tell(stream.answer)

    async def tell(self, answer: Answer) -> None:
        """One line about the answer."""
        spent = await self.conversation.spent()
        cut = "  cut off: raise --max-tokens" if answer.finish_reason == "length" else ""
        tokens = f"{answer.usage.completion_tokens} tokens  {answer.seconds:.2f} s"
        dim(f"{tokens}  {spent.total:,} of {spent.budget:,} in use{cut}")

    async def command(self, line: Line) -> None:
        match line.command:
            case "/help":
                for name, does in COMMANDS.items():
                    note(f"  {name:<8} {does}")
            case "/image":
                self.show_named(line)
            case "/system":
                self.conversation = Conversation(self.client, system=line.text, **self.options)
                note("a new conversation with this system message" if line.text else "a new conversation without one")
            case "/tokens":
                await self.tokens()
            case "/save" | "/load" if not line.text:
                raise usage_error(f"{line.command} needs a file", f"{line.command} talk.json")
            case "/save":
                path = path_of(line.text)
                await asyncio.to_thread(self.conversation.save, path)
                note(f"{len(self.conversation.history.turns)} turns in {path}")
            case "/load":
                self.conversation = Conversation.load(self.client, path_of(line.text), **self.options)
                self.replay()
            case "/clear":
                self.conversation.clear()
                self.images, self.videos = [], []
                note("forgotten")
            case unknown:
                raise usage_error(f"there is no {unknown}", "/help lists the commands")

    def show_named(self, line: Line) -> None:
        """
        Raises:
            VlfleetError: no such picture.
        """
        if not line.images and not line.videos:
            raise usage_error(f"{line.text or '/image'} names no picture that is here", "/image photo.jpg")
        self.show([*line.images], [*line.videos])

    async def tokens(self) -> None:
        spent, history = await self.conversation.spent(), self.conversation.history
        note(f"  {spent.visual:>7,} for {len(history.media)} pictures and videos")
        note(f"  {spent.text:>7,} for text, of {len(history.turns)} turns{' and a summary' * bool(history.summary)}")
        note(f"  {spent.budget:>7,} at most, {spent.budget - spent.prompt:,} of them for the answer")

    def replay(self) -> None:
        """What was said, after loading."""
        history = self.conversation.history
        if history.summary:
            dim(printable(history.summary))
        for turn in history.turns:
            note(f"> {'[picture] ' * len(turn.media)}{printable(turn.question)}\n{printable(turn.answer)}")


def dim(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, style="dim", soft_wrap=True, markup=False)


def name_of(completion: str) -> str:
    """What is shown of a completed line: a command, or the last part of a path."""
    if completion.rstrip() in COMMANDS:
        return completion.rstrip()
    return completion.rstrip().rstrip("/").rpartition("/")[2] + "/" * completion.endswith("/")


def prepare_terminal() -> Callable[[], None]:
    """Completion and history of lines; the returned function keeps the history."""
    try:
        import readline
    except ImportError:  # a Python without it
        return lambda: None
    path = home() / "chat_history"
    with suppress(OSError):
        readline.read_history_file(path)
    found: list[str] = []

    def complete(_: str, state: int) -> str | None:
        if state == 0:
            found[:] = completions(readline.get_line_buffer()[: readline.get_endidx()])
        return found[state] if state < len(found) else None

    def display(_: str, matches: Sequence[str], __: int) -> None:
        names = [name_of(match) for match in matches]
        print("\n" + "  ".join(names), f"\n> {readline.get_line_buffer()}", sep="", end="", flush=True)

    readline.set_completer_delims("\n")
    readline.set_completer(complete)
    readline.set_completion_display_matches_hook(display)
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")

    def remember() -> None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(HISTORY_LINES)
            readline.write_history_file(path)
            path.chmod(0o600)

    return remember
