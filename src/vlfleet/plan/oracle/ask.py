"""Asks the oracle: one subprocess for each kind of GPU, questions in, answers out line by line."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vlfleet.errors import VlfleetError
from vlfleet.plan.oracle.folder import folder_of
from vlfleet.plan.oracle.question import Answer, Device, Question, RankBytes, Verdict

INSIDE = Path(__file__).with_name("inside.py")
IMPORT_SECONDS = 180.0
"""Until vLLM is imported: 5 s on two cores, 15 s from a cold disk."""
QUESTION_SECONDS = 60.0
"""For one answer: 0.03 to 0.9 s, 5 s where the headers of 36,000 GPTQ experts are read."""
ARTEFACTS = (
    "meta tensor",
    "Imagined",
    "_OpNamespace",
    "Torch not compiled with CUDA",
    "NVIDIA driver",
    "No CUDA GPUs",
    "CUDA error",
    "libcuda",
)
"""In the text of errors that come from there being no GPU and no weights: they say nothing about the configuration."""


class UnusableError(Exception):
    """vLLM could not be imported, or not be made to believe in the GPU: no question can be answered."""


def ask(python: str, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
    """(index of a question, answer) as answers come, once for each question; those for one GPU follow each other.

    `python` is the interpreter that can import vLLM. One that crashes or hangs over a question leaves that one UNKNOWN,
    and the next is asked in a new process. No GPU of this machine is touched.

    Raises:
        UnusableError: vLLM cannot be asked at all; what was not yet answered stays so.
    """
    with tempfile.TemporaryDirectory(prefix="vlfleet-oracle-") as scratch:
        for device in dict.fromkeys(question.device for question in questions):
            waiting = [(at, question) for at, question in enumerate(questions) if question.device == device]
            while waiting:
                with Subprocess(python, device, Path(scratch)) as oracle:
                    while waiting and oracle.alive:
                        at, question = waiting.pop(0)
                        yield at, oracle.answer(question)


class Subprocess:
    """One vLLM that believes in one GPU. A context manager; entering it imports vLLM.

    Raises:
        UnusableError: on entering.
    """

    def __init__(self, python: str, device: Device, scratch: Path) -> None:
        self._command = [python, str(INSIDE)]
        self._device = device
        self._scratch = scratch
        self._buffer = b""
        self.alive = False
        self.version = ""

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile(dir=self._scratch)
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=_environment(self._scratch),
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise UnusableError(f"{self._command[0]} cannot be run: {error}") from None
        try:
            gpu = {"name": self._device.name, "capability": self._device.capability}
            hello = self._exchange({**gpu, "memory_bytes": self._device.memory_bytes}, IMPORT_SECONDS)
            if fault := hello.get("fault") or hello.get("error"):
                raise UnusableError(f"vLLM {hello.get('version', '')} cannot be asked: {fault}".replace("  ", " "))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.version = str(hello["version"])
        self.alive = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def answer(self, question: Question) -> Answer:
        """vLLM's answer. Afterwards `alive` tells whether it can be asked again."""
        try:
            folder = folder_of(question.model, self._scratch)
        except (OSError, ValueError, KeyError, VlfleetError) as error:
            return read({"fault": f"the checkpoint cannot be read: {error}"}, self.version)
        asked = {"model": str(folder), "arguments": question.arguments, "env": dict(question.env)}
        reply = self._exchange(asked, QUESTION_SECONDS)
        self.alive = "fault" not in reply
        return read(reply, self.version)

    def _exchange(self, said: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to a line; {"fault": why} when there is none."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
            self._process.stdin.flush()
        line = self._line(time.monotonic() + seconds)
        if line is None:
            return {"fault": f"no answer in {seconds:.0f} s"}
        try:
            return dict(json.loads(line))
        except ValueError:
            code = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return {"fault": f"it ended with {how}{': ' if last else ''}{''.join(last)}"}

    def _line(self, end: float) -> bytes | None:
        """The next line of output, what there is of it when the process ends, None after `end`."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            if not select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            self._buffer += chunk
            if not chunk:
                break
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def read(reply: Mapping[str, Any], version: str) -> Answer:
    """The answer that a line of the subprocess holds."""
    source = f"vLLM {version} here"
    if "fault" in reply:
        return Answer(Verdict.UNKNOWN, source, version, error=str(reply["fault"]), stage="oracle")
    seconds = float(reply["seconds"])
    if "ranks" in reply:
        ranks = tuple(RankBytes(**rank) for rank in reply["ranks"])
        return Answer(Verdict.STARTS, source, version, ranks, reply["decided"], seconds=seconds)
    error, kind = str(reply["error"]), str(reply["error_type"])
    unrelated = kind in ("ImportError", "ModuleNotFoundError") or any(word in error for word in ARTEFACTS)
    return Answer(
        Verdict.UNKNOWN if unrelated else Verdict.REFUSED,
        source,
        version,
        error=error,
        error_type=kind,
        stage=str(reply["stage"]),
        where=str(reply["where"]),
        seconds=seconds,
    )


def _environment(scratch: Path) -> dict[str, str]:
    """No GPU, no network, no threads that would only fight over cores; temporary files where they are swept up."""
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(scratch),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
