"""Runs inside the Python that has vLLM: reads one `vllm serve` command line as that vLLM would, and says what is wrong.

Standard input: {"argv": [...], "configure": true}. The last line of standard output is JSON with

    version   of the installed vLLM
    error     what its parser or its configuration refused, verbatim, or ""
    stage     "import", "flags" or "configuration": where the error came from
    flags     every flag of this version, for a suggestion when one is unknown

`configure` also builds the engine's configuration (model type, lengths, tensor-parallel size, dtype, quantisation): all
that vLLM checks before it starts a process, and no GPU memory is touched. Standard library and vLLM only.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from typing import Any

PARSERS = (
    "vllm.entrypoints.launchers.cli_args",  # 0.32
    "vllm.entrypoints.openai.cli_args",  # 0.20 to 0.26
)
ARGPARSE = ("vllm.utils.argparse_utils", "vllm.utils")


def first(names: tuple[str, ...]) -> Any:
    """The first of these modules that exists."""
    for name in names[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    return importlib.import_module(names[-1])


def check(argv: list[str], configure: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"version": "", "error": "", "stage": "import", "flags": []}
    try:
        import vllm

        answer["version"] = vllm.__version__
        cli = first(PARSERS)
        parser = cli.make_arg_parser(first(ARGPARSE).FlexibleArgumentParser(prog="vllm serve"))
        answer["stage"] = "flags"
        answer["flags"] = sorted({flag for action in parser._actions for flag in action.option_strings})
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                args = parser.parse_args(argv)
        except SystemExit:
            lines = said.getvalue().strip().splitlines()
            answer["error"] = lines[-1].partition("error: ")[2] or lines[-1] if lines else "refused"
            return answer
        if getattr(args, "model_tag", None):
            args.model = args.model_tag
        cli.validate_parsed_serve_args(args)
        if configure:
            answer["stage"] = "configuration"
            from vllm.engine.arg_utils import AsyncEngineArgs

            AsyncEngineArgs.from_cli_args(args).create_engine_config()
    except Exception as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    return answer


if __name__ == "__main__":
    task = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        found = check(task["argv"], task["configure"])
    print(json.dumps(found))
