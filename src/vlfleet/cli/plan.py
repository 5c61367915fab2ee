"""`vlfleet plan`: what to run on which GPUs, and why, without touching one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from vlfleet.cli.options import AsJson, note

if TYPE_CHECKING:
    from vlfleet.plan.plan import Plan


def _option(*names: str, **more: Any) -> Any:
    return typer.Option(*names, show_default=False, **more)


class PlanCommand(TyperCommand):
    """Lets --compare take several words: `--compare TP4 REPLICAS4 TP2xPP2`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if "--compare" in args:
            at = args.index("--compare") + 1
            end = at
            while end < len(args) and re.match(r"(TP|PP|REPLICAS|DP)\d", args[end], re.IGNORECASE):
                end += 1
            args = [*args[:at], ",".join(args[at:end]), *args[end:]] if end > at else args
        return super().parse_args(ctx, args)


def plan(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder, a config.json, or a published model's name.")
    ],
    gpus: Annotated[str, typer.Option(help="4xRTX4090, 2xA100-80GB,2xL40S; auto: those of this machine.")] = "auto",
    gpu_spec: Annotated[
        list[str] | None, _option(help="A GPU that is not known, NAME:memory_gib=24,bandwidth_gb_s=600,...")
    ] = None,
    link: Annotated[str | None, _option(help="How named GPUs are joined: pcie3, pcie4, pcie5, nvlink.")] = None,
    preset: Annotated[
        str | None, typer.Option("--for", help="A workload: general, chat, ocr, batch, agents.", show_default="general")
    ] = None,
    images: Annotated[str | None, _option(help="Sizes of pictures: 1920x1080:3,800x600:1; none.")] = None,
    images_per_request: Annotated[int | None, _option(help="Pictures of one request.")] = None,
    repeated_share: Annotated[str | None, _option(help="Pictures that come again, as 50%.")] = None,
    working_set: Annotated[int | None, _option(help="Different pictures that come again.")] = None,
    prompt_tokens: Annotated[int | None, _option(help="Of text, without pictures.")] = None,
    output_tokens: Annotated[int | None, _option(help="Of an answer.")] = None,
    concurrency: Annotated[int | None, _option(help="Requests in flight.")] = None,
    request_rate: Annotated[str | None, _option(help="Instead: 5/s, 300/min, 20000/day.")] = None,
    ttft_p95: Annotated[str | None, _option(help="Within which 95 of 100 have their first token: 2s.")] = None,
    tpot_p95: Annotated[str | None, _option(help="Time between two tokens that 95 of 100 stay below: 50ms.")] = None,
    optimise: Annotated[
        str, typer.Option("--optimise", "--optimize", help="throughput, latency, memory.")
    ] = "throughput",
    quantization: Annotated[
        str, typer.Option("--quantization", "-q", help="auto: fp8 only if nothing else fits; none, fp8, any.")
    ] = "auto",
    max_pixels: Annotated[int | None, _option(min=784, help="A larger picture is scaled down.")] = None,
    max_model_len: Annotated[int | None, _option(min=1, help="Tokens of prompt and answer.")] = None,
    kv_cache_dtype: Annotated[str, typer.Option(help="auto, fp8.")] = "auto",
    vllm_version: Annotated[str | None, typer.Option(help="As 0.26.", show_default="the installed one")] = None,
    host_memory: Annotated[str | None, _option(help="Of the machine, for named GPUs: 128G.")] = None,
    compare: Annotated[
        str | None, _option(metavar="LAYOUT...", help="Weigh these alone: TP4 REPLICAS4 TP2xPP2.")
    ] = None,
    explain: Annotated[str | None, _option(help="memory, speed, or the name of a term.")] = None,
    prove: Annotated[bool, typer.Option("--prove", help="Let vLLM itself, or its table, confirm it.")] = False,
    picture: Annotated[
        Path | None,
        _option(metavar="FILE", help="Draw the memory of each GPU, .svg or .png; further fleets get a number."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose quantisation, layout and flags for a model on GPUs, and say why. No GPU is touched.

    The model is read from its headers or its configuration alone. Exit code 3: nothing fits.
    """

    from vlfleet.cli import plan_inputs as read
    from vlfleet.plan.fleets import fleets
    from vlfleet.plan.model import read_model
    from vlfleet.plan.plan import Inputs

    workload = read.workload_of(
        preset,
        {
            "images": images,
            "images_per_request": images_per_request,
            "repeated_share": repeated_share,
            "working_set": working_set,
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            "concurrency": concurrency,
            "request_rate": request_rate,
            "ttft_p95_seconds": ttft_p95,
            "tpot_p95_seconds": tpot_p95,
        },
    )
    goal, quantise = (
        read.one_of("--optimise", optimise, read.GOALS),
        read.one_of("--quantization", quantization, read.QUANTISE),
    )
    known = read_model(model)
    machine, models, said = read.machine_of(gpus, gpu_spec or [], link)
    release = read.release_of(vllm_version)
    kinds = read.kinds_of(machine, models, release)
    first = kinds[machine.gpus[0].index]
    inputs = Inputs(
        model=known,
        gpu=first.model,
        machine=machine,
        workload=workload,
        release=release,
        optimise=goal,  # type: ignore[arg-type]
        quantise=quantise,  # type: ignore[arg-type]
        max_pixels=max_pixels,
        max_model_len=max_model_len,
        kv_cache_dtype=kv_cache_dtype,
        host_memory_bytes=read.size_of(host_memory) or machine.host_memory_bytes,
        calibration=first.calibration,
        coefficients=first.coefficients,
    )
    read.check(inputs)
    only = read.layouts_of(compare, len(machine.gpus))

    def plans(question: Inputs) -> tuple[Plan, ...]:
        return fleets(question, machine, kinds, only=only)

    ours = preset is None and images is None
    found = read.with_smaller_pictures(inputs, plans, _any_fits) if ours else plans(inputs)
    for line in said:
        note(line)
    if prove:
        from vlfleet.engine.vllm import install
        from vlfleet.plan.proof import proved

        python = install.find().python if install.exists() else None
        found = tuple(proved(each, python) for each in found)
    if picture:
        _draw(found, picture)
    _print(found, explain, as_json)
    if explain == "speed" and not as_json:
        from vlfleet.calibrate.saved import speed_source

        for called in dict.fromkeys(gpu.name for gpu in machine.gpus):
            whose = f" of {called}" if len(found) > 1 else ""
            print(f"Coefficients{whose}: {speed_source(called, release)}")
    if not _any_fits(found):
        raise typer.Exit(3)


def _any_fits(found: tuple[Plan, ...]) -> bool:
    return any(each.chosen for each in found)


def _draw(found: tuple[Plan, ...], file: Path) -> None:
    from vlfleet.errors import ExitCode, VlfleetError
    from vlfleet.plan.render_png import png
    from vlfleet.plan.render_svg import svg

    kind = file.suffix.lower()
    if kind not in (".svg", ".png"):
        raise VlfleetError(f"--picture {file} is neither .svg nor .png", "name the file so", ExitCode.USAGE)
    for number, each in enumerate(found, 1):
        to = file if number == 1 else file.with_stem(f"{file.stem}-{number}")
        try:
            to.write_bytes(png(each) if kind == ".png" else svg(each).encode())
        except OSError as error:
            raise VlfleetError(
                f"{to} cannot be written: {error.strerror}", "name another file", ExitCode.USAGE
            ) from None


def _print(found: tuple[Plan, ...], explain: str | None, as_json: bool) -> None:
    if as_json:
        import json

        from vlfleet.cli.plan_json import facts

        print(json.dumps(facts(found), indent=2))
        return
    from vlfleet.cli.plan_text import text

    print("\n".join(text(found, explain)))
