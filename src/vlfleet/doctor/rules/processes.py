"""Processes of one engine: ports, shared memory, collective operations; those that hang and those that are killed."""

from __future__ import annotations

from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.sign import sign

_OUT_OF_HOST_MEMORY = (
    "`dmesg -T | grep -i 'out of memory'` shows the kernel's choice; --mm-processor-cache-gb 1"
    " frees up to 3 GiB an engine"
)


def _peer_to_peer(found: Found) -> str:
    """The two switches that tell whether peer-to-peer copies are broken, and what mends them."""
    if found.count("sequence") > 1:
        return (
            f"it worked {found.count('sequence') - 1:,} times: look for the rank that stopped or ran out of memory"
            f" first"
            " (`vlfleet logs`, nvidia-smi, dmesg | grep -i xid)"
        )
    return (
        "the GPUs cannot talk (`vlfleet doctor` tries copies and an all-reduce): test NCCL_P2P_DISABLE=1 with"
        " --disable-custom-all-reduce; if that helps, set iommu=pt on the kernel's command line or switch ACS off"
        " in the BIOS"
    )


def _by_signal(found: Found) -> str:
    """Host memory for signal 9, /dev/shm for 7, the driver for the others."""
    number = found.count("signal")
    if number == 9:
        return _OUT_OF_HOST_MEMORY
    if number == 7:
        return "a larger /dev/shm: --shm-size=10g or --ipc=host"
    return "`dmesg -T | tail` names the library; a driver or a kernel of another version is the usual reason"


RULES = (
    Rule(
        name="explained-by-the-engine",
        kind=FailureKind.UNKNOWN,
        signs=(sign("^ERROR: <problem~> | <advice~>$"),),
        cause="{problem}",
        remedy="{advice}",
        retry=True,
    ),
    Rule(
        name="port-in-use",
        kind=FailureKind.PORT,
        signs=(
            sign("^OSError: [Errno 98] Address already in use"),
            sign("error while attempting to bind on address ('<host>', <port#>): address already in use"),
            sign("error while attempting to bind on address ('<host>', <port#>): [errno 98] address already in use"),
        ),
        cause="another process listens on the port",
        remedy="another --port, or end what `ss -ltnp` shows on this one",
        retry=True,
    ),
    Rule(
        name="nccl-timeout",
        kind=FailureKind.MACHINE,
        signs=(
            sign(
                "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=<sequence#>, OpType=<operation>,"
                "<~>Timeout(ms)=<timeout_ms#>)"
            ),
        ),
        cause="a collective operation ({operation}) waited {timeout_ms} ms for a rank that did not come",
        remedy=_peer_to_peer,
        covers=("Q34",),
        threads=(
            "vllm-project/vllm#5458",
            "vllm-project/vllm#5484",
            "vllm-project/vllm#8978",
            "vllm-project/vllm#33041",
            "vllm-project/vllm#51513",
        ),
        retry=True,
    ),
    Rule(
        name="cuda-before-fork",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Cannot re-initialize CUDA in forked subprocess"),),
        cause="CUDA was used before the worker processes were forked",
        remedy='VLLM_WORKER_MULTIPROC_METHOD=spawn, and in a script `if __name__ == "__main__":` around the call',
        covers=("Q38",),
        threads=("vllm-project/vllm#8893", "vllm-project/vllm#6152", "vllm-project/vllm#13677", "lm-sys/FastChat#3507"),
    ),
    Rule(
        name="shared-memory-too-small",
        kind=FailureKind.MACHINE,
        signs=(
            sign("Error while creating shared memory segment <path> (size <size#>)"),
            sign("Error while creating shared memory segment <path>"),
            sign("insufficient shared memory (shm)"),
            sign("^Bus error (core dumped)"),
        ),
        cause="the container's shared memory is full: /dev/shm has 64 MiB unless told otherwise",
        remedy="--ipc=host or --shm-size=10g (docker), an emptyDir of medium Memory on /dev/shm (Kubernetes); `df -h"
        " /dev/shm` shows it",
        covers=("Q39",),
        threads=("vllm-project/vllm#1710", "vllm-project/vllm#789", "MiniMax-AI/MiniMax-01#42"),
    ),
    Rule(
        name="nccl-system-error",
        kind=FailureKind.MACHINE,
        signs=(
            sign("ncclSystemError: System call (e.g. socket, malloc) or external library call failed"),
            sign("unhandled system error (run with NCCL_DEBUG=INFO for details)"),
        ),
        cause="NCCL could not get shared memory, a socket or a device from the system",
        remedy="`df -h /dev/shm` first (--shm-size=10g); then NCCL_DEBUG=WARN names the call, and NCCL_SOCKET_IFNAME"
        " the network to use",
        covers=("Q39",),
        threads=(
            "vllm-project/vllm#6574",
            "vllm-project/vllm#4383",
            "vllm-project/vllm#10626",
            "MiniMax-AI/MiniMax-01#42",
        ),
        role=Role.GENERAL,
        retry=True,
    ),
    Rule(
        name="worker-killed",
        kind=FailureKind.MACHINE,
        signs=(sign("Worker proc <worker> died unexpectedly (exit code: -<signal#>)"),),
        cause="{worker} was ended by signal {signal}",
        remedy=_by_signal,
        retry=True,
    ),
    Rule(
        name="engine-core-killed",
        kind=FailureKind.MACHINE,
        signs=(sign("engine core exited unexpectedly"),),
        cause="the engine's core process ended without a word: it was killed, mostly by the kernel for want of host"
        " memory",
        remedy="`dmesg -T | grep -i 'out of memory'` shows the kernel's choice; --mm-processor-cache-gb 1 frees up"
        " to 3 GiB an engine",
        role=Role.SECONDARY,
        quiet=True,
        retry=True,
    ),
    Rule(
        name="engine-start-timeout",
        kind=FailureKind.MACHINE,
        signs=(
            sign("Timed out waiting for engine core processes to start.<~>Waited <seconds#>s"),
            sign("Timed out waiting for new engine core processes to start. Waited <seconds#>s"),
        ),
        cause="the engine was not up after {seconds} s",
        remedy="VLLM_ENGINE_READY_TIMEOUT_S=1800; weights on a network file system load at its speed, so copy them"
        " to a local disk",
        retry=True,
    ),
    Rule(
        name="rank-silent",
        kind=FailureKind.MACHINE,
        signs=(sign("No available shared memory broadcast block found in <seconds#> second"),),
        times=5,
        cause="a rank has been silent for minutes: it hangs or is very busy",
        remedy="once or twice at start is compilation; again and again, test NCCL_P2P_DISABLE=1 with"
        " --disable-custom-all-reduce (peer-to-peer broken by IOMMU or ACS)",
        covers=("Q40",),
        threads=("vllm-project/vllm#27313", "vllm-project/vllm-ascend#3977", "gpustack/gpustack#3888"),
        role=Role.SECONDARY,
        quiet=True,
        retry=True,
    ),
    Rule(
        name="engine-died",
        kind=FailureKind.UNKNOWN,
        signs=(
            sign("Engine core initialization failed. See root cause above"),
            sign("EngineCore encountered an issue. See stack trace (above) for the root cause"),
            sign("Frontend process failed during engine core initialization"),
            sign("Engine process failed to start. See stack trace for the root cause"),
            sign("WorkerProc initialization failed due to an exception in a background process"),
            sign("Engine loop has died"),
            sign("Engine loop is not running. Inspect the stacktrace"),
            sign("^TimeoutError: RPC call to <method> timed out"),
            sign("please check the stack trace above for the root cause"),
            sign("AsyncLLM output_handler failed"),
            sign("EngineCore failed to start"),
            sign("EngineCore encountered a fatal error"),
            sign("EngineCore hit an exception"),
            sign("WorkerProc failed to start"),
            sign("WorkerProc hit an exception"),
            sign("^RuntimeError: Executor failed"),
            sign("Engine core proc <~> died unexpectedly"),
            sign("Engine core process <~> died unexpectedly"),
            sign("Worker proc <~> died unexpectedly"),
            sign("^RuntimeError: cancelled$"),
        ),
        cause="the engine died of something that stands above in its log, but not in this part of it",
        remedy="give the whole log: the first traceback names the cause",
        covers=("Q41",),
        threads=("vllm-project/vllm#9238", "vllm-project/vllm#17939"),
        role=Role.SECONDARY,
        retry=True,
    ),
)
