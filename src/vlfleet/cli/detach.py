"""A fleet in the background: the same `vlfleet up` in a session of its own, watched until it is ready or has failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vlfleet.cli.engine_options import arguments as engine_arguments
from vlfleet.cli.options import named, note
from vlfleet.cli.progress import TICK_SECONDS, Progress
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.folder import FleetFolder, locked
from vlfleet.fleet.replica import Replica, settled
from vlfleet.fleet.spec import FleetSpec
from vlfleet.fleet.state import FleetState, load
from vlfleet.run import ALERT_WEBHOOK, already_running, check_port


def arguments(spec: FleetSpec, insecure: bool) -> list[str]:
    """The arguments of `vlfleet up` that ask for `spec`, as it is: it was planned already. What holds a secret is not
    among them."""
    options = {
        "--name": spec.name,
        "--replicas": spec.replicas,
        "--host": spec.host,
        "--port": spec.port,
        "--engine": spec.engine,
        "--served-model-name": spec.served_model_name,
        "--threads": spec.threads,
        "--tensor-parallel-size": spec.tensor_parallel_size,
        "--pipeline-parallel-size": spec.pipeline_parallel_size,
        "--drain-timeout": spec.drain_timeout_seconds,
        "--policy": spec.policy,
        "--media-urls": spec.media_urls,
        "--route-seed": json.dumps(spec.route_seed),
        "--api-key-file": spec.api_key_file,
        "--slo-ttft": spec.slo_ttft_seconds,
        "--slo-share": spec.slo_share,
        "--admin-port": spec.admin_port,
    }
    flags = (
        [f"{option}={value}" for option, value in options.items() if value is not None]
        + ["--no-plan"]
        + ["--insecure"] * insecure
    )
    flags += ["--fit"] * spec.fit
    return ["up", *flags, *engine_arguments(spec.options), str(spec.model), "--", *spec.engine_args]


def detach(spec: FleetSpec, folder: FleetFolder, insecure: bool) -> tuple[FleetSpec, Sequence[Replica]]:
    """Starts the fleet and returns when it is ready.

    Raises:
        VlfleetError: it ended before it was ready; cause, remedy and exit code are its own.
    """
    folder.make()
    if locked(folder):
        raise already_running(spec.name)
    check_port(spec.host, spec.port)
    log = folder.supervisor_log
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vlfleet", *arguments(spec, insecure)],
            env={**os.environ, **({ALERT_WEBHOOK: spec.alert_webhook} if spec.alert_webhook else {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        state = _wait(process, folder)
    except KeyboardInterrupt:
        note(f"still starting in the background: `vlfleet status{named(spec.name)}`, `vlfleet down{named(spec.name)}`")
        raise
    process.returncode = 0  # it lives on after this process
    return state.spec, state.replicas


def _wait(process: subprocess.Popen[bytes], folder: FleetFolder) -> FleetState:
    with Progress(folder) as progress:
        while process.poll() is None:
            state = _state_of(process.pid, folder)
            if state and state.status == "serving":
                progress.update(state.replicas)
                if settled(state.replicas):
                    return state
            time.sleep(TICK_SECONDS)
    raise _reason(folder.supervisor_log, process.returncode)


def _state_of(pid: int, folder: FleetFolder) -> FleetState | None:
    """The state, once the new supervisor has written its own."""
    try:
        state = load(folder)
    except ValueError:
        return None
    return state if state and state.supervisor.pid == pid else None


def _reason(log: Path, returncode: int) -> VlfleetError:
    """What the background process printed last."""
    code = ExitCode(returncode) if returncode in ExitCode._value2member_map_ else ExitCode.FAILED
    lines = log.read_text(errors="replace").splitlines()
    said = {key: line.removeprefix(key) for line in lines for key in ("error: ", "remedy: ") if line.startswith(key)}
    if "error: " in said:
        return VlfleetError(said["error: "], said.get("remedy: ", ""), code)
    return VlfleetError(f"the fleet ended while it started (exit code {returncode})", f"{log} may say why", code)
