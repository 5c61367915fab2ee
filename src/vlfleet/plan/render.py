"""A chosen plan as a systemd unit, a compose file or Kubernetes manifests. Pure: words in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PORT = 8000
_DRAIN_SECONDS = 60
"""Longer than the 30 s that `vlfleet up` gives requests in flight."""
_START_SECONDS = 1800
"""Until weights are loaded and compiled, at most: the 72B from a network disk."""


@dataclass(frozen=True)
class Run:
    """What is to run."""

    model: str
    vllm: str
    gpus: tuple[int, ...]
    """Of all replicas, on the machine that was planned for."""
    replicas: int
    world_size: int
    """GPUs of one replica."""
    up: tuple[str, ...]
    """Arguments of `vlfleet`."""
    serve: tuple[str, ...]
    """Arguments of `vllm`, for one replica."""

    @property
    def name(self) -> str:
        """For units, services and labels: "qwen2-5-vl-7b-instruct"."""
        last = self.model.rstrip("/").rpartition("/")[2]
        return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:50].rstrip("-") or "model"

    @property
    def image(self) -> str:
        """vLLM's own, which the plan was made for."""
        return f"vllm/vllm-openai:v{self.vllm}"

    @property
    def folder(self) -> str:
        """Of a model on disk; empty for one of the hub."""
        return self.model if self.model.startswith(("/", ".", "~")) else ""


def systemd(run: Run, program: str) -> str:
    """A unit for /etc/systemd/system; `program` is the absolute path of vlfleet."""
    return "\n".join(
        (
            f"# /etc/systemd/system/vlfleet-{run.name}.service",
            "[Unit]",
            f"Description=vlfleet serves {run.model}",
            "Wants=network-online.target",
            "After=network-online.target",
            "",
            "[Service]",
            "Type=exec",
            "User=vlfleet",
            "Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID",
            f"Environment=CUDA_VISIBLE_DEVICES={_indices(run.gpus)}",
            f"ExecStart={' '.join(quoted(word) for word in (program, *run.up))}",
            "Restart=on-failure",
            "RestartSec=10",
            f"TimeoutStopSec={_DRAIN_SECONDS}",
            "LimitNOFILE=65536",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        )
    )


def quoted(word: str) -> str:
    """A word of ExecStart: systemd takes quotes as a shell does, and % and $ as its own (systemd.service(5))."""
    text = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def compose(run: Run) -> str:
    """compose.yaml: one container with gateway and engines, from vLLM's image and a checkout of vlfleet."""
    build = f"FROM {run.image}\nCOPY . /opt/vlfleet\nRUN pip install --no-cache-dir /opt/vlfleet\n"
    volumes = (
        [f"{run.folder}:{run.folder}:ro"]
        if run.folder
        else ["${HF_HOME:-~/.cache/huggingface}:/root/.cache/huggingface"]
    )
    service: dict[str, Any] = {
        "build": {"context": "${VLFLEET_SOURCE:-.}", "dockerfile_inline": build},
        "entrypoint": ["vlfleet"],
        # The port is published on loopback only: within the container everybody may come.
        "command": [word.replace("$", "$$") for word in _with_host(run.up)],
        "environment": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        "ports": [f"127.0.0.1:{PORT}:{PORT}"],
        "volumes": volumes,
        "ipc": "host",
        "stop_grace_period": f"{_DRAIN_SECONDS}s",
        "restart": "on-failure",
        "healthcheck": {
            "test": ["CMD", "curl", "-fs", f"http://127.0.0.1:{PORT}/health"],
            "interval": "10s",
            "start_period": f"{_START_SECONDS}s",
        },
        "deploy": {
            "resources": {
                "reservations": {
                    "devices": [
                        {"driver": "nvidia", "device_ids": [str(gpu) for gpu in run.gpus], "capabilities": ["gpu"]}
                    ]
                }
            }
        },
    }
    head = "# VLFLEET_SOURCE names a checkout of vlfleet; the port is open to this machine alone.\n"
    return head + yaml({"services": {run.name: service}})


def kubernetes(run: Run) -> str:
    """A Deployment with a pod for each replica, and a Service before them.

    vlfleet's gateway is not in it: it starts its engines itself. The Service shares out connections, not requests, and
    pictures that come again do not find the replica that knows them.
    """
    labels = {"app": run.name}
    limits = {"nvidia.com/gpu": run.world_size}
    container: dict[str, Any] = {
        "name": "vllm",
        "image": run.image,
        "command": ["vllm", run.serve[0]],
        "args": [*run.serve[1:], "--port", str(PORT)],
        "ports": [{"containerPort": PORT, "name": "http"}],
        "resources": {"limits": limits},
        "startupProbe": {**_probe(), "periodSeconds": 10, "failureThreshold": _START_SECONDS // 10},
        "readinessProbe": {**_probe(), "periodSeconds": 5},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
    }
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    if run.folder:
        container["volumeMounts"].append({"name": "model", "mountPath": run.folder, "readOnly": True})
        volumes.append({"name": "model", "hostPath": {"path": run.folder, "type": "Directory"}})
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": _DRAIN_SECONDS}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": run.name, "labels": labels},
        "spec": {
            "replicas": run.replicas,
            "selector": {"matchLabels": labels},
            # A GPU is free only when the old pod is gone: nothing to surge into.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": run.name},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }
    head = (
        "# One pod a replica behind a Service. vlfleet's gateway is not part of it: a Service shares out\n"
        "# connections, and does not send a picture to the replica that has seen it.\n"
    )
    return head + yaml(deployment) + "---\n" + yaml(service)


def _probe() -> dict[str, Any]:
    return {"httpGet": {"path": "/health", "port": "http"}}


def _with_host(words: Sequence[str]) -> list[str]:
    """For a container: its port is reached from outside."""
    at = words.index("--") if "--" in words else len(words)
    return [*words[:at], "--host=0.0.0.0", "--insecure", *words[at:]]


def _indices(gpus: Sequence[int]) -> str:
    return ",".join(map(str, gpus))


def yaml(value: Any, depth: int = 0) -> str:
    """Block YAML of plain values; every text is written as JSON, which YAML 1.2 takes as it is."""
    space = "  " * depth
    if isinstance(value, dict):
        return "".join(f"{space}{key}:{_after(each, depth)}" for key, each in value.items())
    return "".join(f"{space}-{_item(each, depth)}" for each in value)


def _after(value: Any, depth: int) -> str:
    """What follows a key."""
    if isinstance(value, dict | list) and value:
        return "\n" + yaml(value, depth + 1)
    return f" {json.dumps(value, ensure_ascii=False)}\n"


def _item(value: Any, depth: int) -> str:
    """What follows a dash."""
    if isinstance(value, dict) and value:
        return " " + yaml(value, depth + 1).lstrip(" ")
    return f" {json.dumps(value, ensure_ascii=False)}\n"
