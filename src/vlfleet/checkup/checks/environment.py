"""Environment variables that engines inherit."""

from __future__ import annotations

from collections.abc import Mapping

from vlfleet.checkup.check import Check, Finding, Group, fail, risk, slow, well
from vlfleet.checkup.checks.when import with_gpus
from vlfleet.checkup.facts.environment import Environment
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.network import Network
from vlfleet.checkup.facts.packages import Imports, Packages
from vlfleet.checkup.known import Known
from vlfleet.errors import VlfleetError
from vlfleet.hardware.visible import visible

_ON = ("1", "true", "yes", "on", "y")
SLOWING = {
    "CUDA_LAUNCH_BLOCKING": "every kernel is waited for",
    "NCCL_P2P_DISABLE": "what GPUs say to each other goes through the host",
    "NCCL_SHM_DISABLE": "ranks talk over the network card or loopback",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "every tensor asks the driver for memory",
    "TORCHDYNAMO_DISABLE": "nothing is compiled",
    "VLLM_DISABLE_PYNCCL": "vLLM's own all-reduce is off",
    "VLLM_TRACE_FUNCTION": "every call of Python is written down",
    "VLLM_CPU_CI_ENV": "vLLM on the CPU skips its warm-up",
}
"""Switches that are left over from a search for a fault, and what they do when on."""
RISKY = {
    "VLLM_SERVER_DEV_MODE": "its engines serve /sleep, /collective_rpc and others to whoever reaches them",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "its engines unpickle what other processes send",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "lengths beyond the checkpoint's are taken, and answers get worse there",
}
_FOR_BUILDS = (
    "VLLM_TARGET_DEVICE",
    "VLLM_VERSION_OVERRIDE",
    "VLLM_BUILD",
    "VLLM_HOME",
    "VLLM_INSTALL",
    "VLLM_WORKSPACE",
)
"""Beginnings of names that images and scripts use and vLLM does not read."""


@with_gpus()
def _visible(known: Known) -> Finding:
    machine, value = known[Gpus].machine, known[Environment].variables.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return well(f"not set: all {len(machine.gpus)} GPUs")
    try:
        left = visible(machine, value)
    except VlfleetError as error:
        return fail(error.cause, error.remedy)
    named = len([part for part in value.split(",") if part.strip()])
    saw = f"CUDA_VISIBLE_DEVICES={value} leaves {len(left)} of {len(machine.gpus)}"
    if value.strip() in ("", "-1"):
        return risk(f"{saw}: it hides every GPU", left=0)
    if len(left) < named:
        return risk(f"{saw}, though it names {named}: an entry that is no GPU ends the list", left=len(left))
    return well(saw, left=[gpu.index for gpu in left])


def _leftovers(known: Known) -> Finding:
    variables = known[Environment].variables
    gpus = known.get(Gpus)
    peers = gpus is None or bool(gpus.machine.peers)
    on = {name: what for name, what in SLOWING.items() if variables.get(name, "").lower() in _ON}
    if not peers:
        on.pop("NCCL_P2P_DISABLE", None)
    if variables.get("VLLM_LOGGING_LEVEL", "").upper() == "DEBUG":
        on["VLLM_LOGGING_LEVEL"] = "every step is logged"
    if variables.get("NCCL_DEBUG", "").upper() == "TRACE":
        on["NCCL_DEBUG"] = "every call of NCCL is logged"
    if on:
        saw = "; ".join(f"{name}={variables[name]}: {what}" for name, what in on.items())
        return slow(saw, f"unset {' '.join(on)}", variables=list(on))
    return well("none of the switches that slow engines is on")


def _risky(known: Known) -> Finding:
    variables = known[Environment].variables
    on = {name: what for name, what in RISKY.items() if variables.get(name, "").lower() in _ON}
    if on:
        saw = "; ".join(f"{name}: {what}" for name, what in on.items())
        return risk(saw, f"unset {' '.join(on)}", variables=list(on))
    return well("none of the switches that open engines up is on")


def _vllm_variables(known: Known) -> Finding:
    variables, packages, network = known[Environment].variables, known[Packages], known[Network]
    port = variables.get("VLLM_PORT", "")
    if port and not port.isdecimal():
        remedy = "a Kubernetes service must not be called `vllm`: rename it, or enableServiceLinks: false in the pod"
        return fail(f"VLLM_PORT={port} is no port", remedy)
    host = variables.get("VLLM_HOST_IP", "")
    if host and network.addresses and host not in network.addresses:
        return fail(
            f"VLLM_HOST_IP={host} is no address of this machine", "unset VLLM_HOST_IP, or set it to one of its own"
        )
    ours = [name for name in variables if name.startswith("VLLM_") and not name.startswith(_FOR_BUILDS)]
    unknown = sorted(set(ours) - packages.vllm_variables) if packages.vllm_variables else []
    # Kubernetes sets VLLM_SERVICE_HOST and the like for a service of that name
    unknown = [
        name for name in unknown if not name.endswith(("_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_ADDR", "_PROTO"))
    ]
    if unknown:
        saw = f"vLLM {packages.vllm} does not know {', '.join(unknown)}"
        return risk(saw, f"unset {' '.join(unknown)}, or look up what they are called now", unknown=unknown)
    return well(f"{len(ours)} variables of vLLM, all of them known" if ours else "no variable of vLLM is set")


@with_gpus()
def _library_path(known: Known) -> Finding:
    libraries = known[Environment].libraries
    stubs = [library for library in libraries if library.name == "cuda" and "stubs" in library.path]
    if stubs:
        return fail(f"LD_LIBRARY_PATH leads to {stubs[0].path}, a stub", "take that folder out of LD_LIBRARY_PATH")
    imports = known.get(Imports)
    cuda = imports.cuda.partition(".")[0] if imports else ""
    # what has another soname than torch's is never loaded in its place
    shadows = [
        each
        for each in libraries
        if each.name in ("cudnn", "nccl") or (each.name in ("cublas", "cudart") and str(each.major) == cuda)
    ]
    paths = sorted({library.path for library in shadows})
    if not paths:
        return well("LD_LIBRARY_PATH puts no CUDA library before torch's")
    saw = f"LD_LIBRARY_PATH puts {', '.join(paths[:3])} before what torch brought"
    if imports and imports.devices and not imports.vllm_error and not imports.torch_error:
        return well(f"{saw}; all can be imported with it", paths=paths)
    return risk(saw, paths=paths)


def _proxies(known: Known) -> Finding:
    variables = known[Environment].variables
    names = [name for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy") if variables.get(name)]
    if not names:
        return well("no proxy for http is set")
    if bypassed(variables, "127.0.0.1") and bypassed(variables, "localhost"):
        return well(f"{names[0]} is set, and NO_PROXY leaves 127.0.0.1 and localhost out")
    return risk(f"{names[0]} is set, and NO_PROXY does not leave 127.0.0.1 and localhost out", variables=names)


def bypassed(variables: Mapping[str, str], host: str) -> bool:
    """Whether NO_PROXY names this host, or everything; networks as 127.0.0.0/8 count, as in requests and Go."""
    import ipaddress

    for entry in (variables.get("no_proxy") or variables.get("NO_PROXY") or "").split(","):
        entry = entry.strip().lstrip(".")
        if entry == "*" or (entry and entry.partition(":")[0] == host):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def _home(known: Known) -> Finding:
    variables = known[Environment].variables
    if variables.get("PYTHONHOME"):
        return risk(
            f"PYTHONHOME={variables['PYTHONHOME']}: every Python takes its library from there", "unset PYTHONHOME"
        )
    return well("PYTHONHOME is not set")


CHECKS = (
    Check("visible-devices", Group.ENVIRONMENT, _visible,
          "CUDA_VISIBLE_DEVICES hides GPUs; from the first entry that is none it hides all that follow.",
          "unset CUDA_VISIBLE_DEVICES, or give indices as nvidia-smi -L lists them",
          source="CUDA programming guide, environment variables"),
    Check("leftovers", Group.ENVIRONMENT, _leftovers,
          "What helped to find a fault once slows every engine that inherits it.",
          "unset them", source="vllm-project/vllm#5484"),
    Check("open-switches", Group.ENVIRONMENT, _risky,
          "Some switches of vLLM are for development, and open an engine to whoever reaches it.",
          "unset them", source="vLLM, docs/usage/security.md"),
    Check("vllm-variables", Group.ENVIRONMENT, _vllm_variables,
          "A variable that vLLM does not know does nothing: mostly it was renamed, or is a typing error.",
          "unset them, or look up what they are called now", source="vLLM, envs.py"),
    Check("library-path", Group.ENVIRONMENT, _library_path,
          "Libraries of another CUDA that are found first end in undefined symbols, or in CUDA errors.",
          "unset LD_LIBRARY_PATH: torch and vLLM bring their own libraries",
          source="gpustack/gpustack#2691; vllm-project/vllm#1772"),
    Check("proxies", Group.ENVIRONMENT, _proxies,
          "Clients (openai, requests, curl) send calls to 127.0.0.1 through the proxy, which cannot reach it.",
          "export NO_PROXY=127.0.0.1,localhost,::1 no_proxy=127.0.0.1,localhost,::1"),
    Check("python-home", Group.ENVIRONMENT, _home,
          "With PYTHONHOME a virtual environment is no environment of its own any more.", "unset PYTHONHOME"),
)  # fmt: skip
