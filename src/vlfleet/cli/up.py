"""`vlfleet up`: start a fleet, in the foreground or behind it."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from vlfleet.cli.engine_options import (
    DisableCustomAllReduce,
    DistributedExecutorBackend,
    Dtype,
    GpuMemoryUtilization,
    KvCacheDtype,
    KvCacheMemoryBytes,
    LimitMmPerPrompt,
    MaxModelLen,
    MaxNumBatchedTokens,
    MaxNumSeqs,
    MaxPixels,
    MmEncoderTpMode,
    MmProcessorCacheGb,
    PipelineParallelSize,
    Quantization,
    TensorParallelSize,
    engine_options,
)
from vlfleet.cli.options import AsJson, Name, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlfleet.fleet.replica import Replica
    from vlfleet.fleet.spec import FleetSpec


class UpCommand(TyperCommand):
    """Keeps what follows `--` for the engine, also when no MODEL comes before it."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if "--" in args:
            at = args.index("--")
            ctx.meta["engine_args"] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [*super().collect_usage_pieces(ctx), "[-- ENGINE_ARGS...]"]


def up(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A checkpoint folder or a hub name; without it, the demo model.")] = "",
    name: Name = "default",
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="Engine processes, which share the requests.", show_default="as planned; CPU: 2"
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--for", help="A workload to plan for: general, chat, ocr, batch, agents.", show_default="general"
        ),
    ] = None,
    no_plan: Annotated[
        bool, typer.Option("--no-plan", help="The engine's defaults for all that is not said here.")
    ] = False,
    tensor_parallel_size: TensorParallelSize = None,
    pipeline_parallel_size: PipelineParallelSize = None,
    quantization: Quantization = None,
    dtype: Dtype = None,
    max_model_len: MaxModelLen = None,
    max_num_seqs: MaxNumSeqs = None,
    max_num_batched_tokens: MaxNumBatchedTokens = None,
    max_pixels: MaxPixels = None,
    limit_mm_per_prompt: LimitMmPerPrompt = None,
    gpu_memory_utilization: GpuMemoryUtilization = None,
    kv_cache_memory_bytes: KvCacheMemoryBytes = None,
    kv_cache_dtype: KvCacheDtype = None,
    mm_processor_cache_gb: MmProcessorCacheGb = None,
    mm_encoder_tp_mode: MmEncoderTpMode = None,
    distributed_executor_backend: DistributedExecutorBackend = None,
    disable_custom_all_reduce: DisableCustomAllReduce = False,
    host: Annotated[str, typer.Option(help="Address of the gateway.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 takes a free one.")] = 8000,
    engine: Annotated[
        str, typer.Option(help="vllm, embedded, or module:Class.", show_default="vllm with a GPU, else embedded")
    ] = "",
    served_model_name: Annotated[str, typer.Option(help="What clients call the model.", show_default="its name")] = "",
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of each replica.", show_default="cores / replicas")
    ] = 0,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the fleet is ready.")] = False,
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds that requests in flight get when the fleet is stopped.")
    ] = 30.0,
    policy: Annotated[
        str,
        typer.Option(help="Of the route: predicted, round_robin, least_connections, weighted, sticky (X-Session-Id)."),
    ] = "predicted",
    media_urls: Annotated[
        str,
        typer.Option(
            help="URLs of pictures that the gateway fetches: deny, public, or HOST,*.HOST.",
            show_default="public on loopback, else deny",
        ),
    ] = "",
    api_key_file: Annotated[
        str,
        typer.Option(
            help="File with a key that clients must have, beside those of `vlfleet keys`.",
            metavar="FILE",
            show_default="$VLFLEET_API_KEY",
        ),
    ] = "",
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the page and the admin, on 127.0.0.1; 0 takes a free one.",
            show_default="the one after --port, else a free one",
        ),
    ] = None,
    alert_webhook: Annotated[
        str,
        typer.Option(
            help="URL that gets each alert as JSON, when it begins and when it ends.",
            metavar="URL",
            show_default="$VLFLEET_ALERT_WEBHOOK",
        ),
    ] = "",
    slo_ttft: Annotated[
        float, typer.Option(min=0.001, help="Seconds within which a stream is to begin; the alert slo_burn watches it.")
    ] = 5.0,
    slo_share: Annotated[
        float, typer.Option(min=0.5, max=0.99999, help="Of requests that are to be answered, and to begin in time.")
    ] = 0.99,
    fit: Annotated[
        bool,
        typer.Option("--fit", help="Resize pictures in the gateway, to the very size at which the model sees them."),
    ] = False,
    route_seed: Annotated[str, typer.Option(hidden=True, help="What the plan predicts, for --detach.")] = "{}",
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Print GPUs, commands, environment and ports; start nothing.")
    ] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve a network without an API key.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a fleet; Ctrl-C, or `vlfleet down`, drains and stops it.

    With vLLM, `vlfleet plan` decides what is not said. A fleet whose supervisor was killed still runs its replicas:
    the same `vlfleet up` takes them over.
    """
    from vlfleet.checkpoint import preflight
    from vlfleet.cli.plan_inputs import one_of
    from vlfleet.cli.up_plan import check_preset, decide
    from vlfleet.cli.up_ready import announce
    from vlfleet.fleet.engines import default_engine, engine_named
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.spec import FleetSpec, default_threads
    from vlfleet.gateway.route.policy import Policy
    from vlfleet.run import check_host, keyring_of, webhook_of

    check_preset(preset, no_plan)
    folder = FleetFolder.of(name)
    keyring = keyring_of(folder, api_key_file, note)
    check_host(host, insecure=insecure, keyed=keyring.required)
    engine = engine or default_engine()
    runs = engine_named(engine)
    if not model:
        from vlfleet.demo import SERVED_MODEL_NAME, model_path

        model, served_model_name = str(model_path()), served_model_name or SERVED_MODEL_NAME
    engine_args = ctx.meta.get("engine_args", ())
    path = preflight(model, weights=not makes_weights_up(engine_args)).path
    spec = FleetSpec(
        model=path,
        served_model_name=served_model_name or _default_name(model, path.name),
        name=name,
        engine=engine,
        tensor_parallel_size=tensor_parallel_size or 1,
        pipeline_parallel_size=pipeline_parallel_size or 1,
        options=engine_options(
            quantization=quantization,
            dtype=dtype,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_pixels=max_pixels,
            limit_mm_per_prompt=limit_mm_per_prompt,
            gpu_memory_utilization=gpu_memory_utilization,
            kv_cache_memory_bytes=kv_cache_memory_bytes,
            kv_cache_dtype=kv_cache_dtype,
            mm_processor_cache_gb=mm_processor_cache_gb,
            mm_encoder_tp_mode=mm_encoder_tp_mode,
            distributed_executor_backend=distributed_executor_backend,
            disable_custom_all_reduce=disable_custom_all_reduce,
        ),
        engine_args=engine_args,
        host=host,
        port=port,
        drain_timeout_seconds=drain_timeout,
        policy=one_of("--policy", policy, tuple(Policy)),
        media_urls=media_urls,
        fit=fit,
        route_seed=json.loads(route_seed),
        api_key_file=str(Path(api_key_file).absolute()) if api_key_file else "",
        admin_port=admin_port,
        alert_webhook=webhook_of(alert_webhook),
        slo_ttft_seconds=slo_ttft,
        slo_share=slo_share,
    )
    sizes = (tensor_parallel_size, pipeline_parallel_size, replicas)
    chosen = None if no_plan else decide(spec, sizes, preset, runs, model, None if dry else folder)
    if chosen:
        spec = dataclasses.replace(chosen.spec, threads=threads or chosen.spec.threads)
    else:
        replicas = replicas or runs.default_replicas(spec.engine_spec)
        spec = dataclasses.replace(spec, replicas=replicas, threads=threads or default_threads(replicas))
    if dry:
        from vlfleet.cli.dry_run import dry_run

        dry_run(spec, runs, as_json, chosen)
        return
    if detach:
        from vlfleet.cli.detach import detach as run_detached

        announce(folder, *run_detached(spec, folder, insecure), as_json, keyed=keyring.required)
        return
    from vlfleet.run import run, serve

    async def show(spec: FleetSpec, replicas: Sequence[Replica]) -> None:
        import asyncio

        from vlfleet.cli.progress import TICK_SECONDS, Progress
        from vlfleet.fleet.replica import settled

        progress = Progress(folder)
        with progress:
            while not settled(replicas):
                progress.update(replicas)
                await asyncio.sleep(TICK_SECONDS)
            progress.update(replicas)
        announce(folder, spec, replicas, as_json, keyed=keyring.required)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            progress.update(replicas)

    raise typer.Exit(run(serve(spec, runs, folder, show=show, say=note, keyring=keyring)))


def makes_weights_up(engine_args: Sequence[str]) -> bool:
    """Whether the engine is told to run random weights, so that a folder without any will do."""
    return "--load-format=dummy" in engine_args or ("--load-format", "dummy") in pairwise(engine_args)


def _default_name(model: str, folder: str) -> str:
    """A hub name as it is, as vLLM does; of a path only its last part: the rest is nobody's business."""
    return model if "/" in model and not model.startswith((".", "/", "~")) and folder not in model else folder
