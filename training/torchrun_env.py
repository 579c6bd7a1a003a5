"""What torchrun, or another launcher, says in the environment.

Read before Accelerate is up: creating its state already connects the processes and chooses the devices.
"""

import logging
import os

import torch
from accelerate.utils import parse_flag_from_env

from artifacts.run_folder import RunError

# A process's number among those that its launcher started, and how many there are, as Accelerate reads them.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)


def launched_rank() -> tuple[str, int]:
    """Return the variable with this process's number among its launcher's, and the number; 0 without others."""
    for rank, size in LAUNCHERS:
        # A number without a count says nothing: a shell may have exported it hours ago.
        if os.environ.get(rank, "").isdecimal() and os.environ.get(size, "").isdecimal():
            return rank, int(os.environ[rank]) if int(os.environ[size]) > 1 else 0
    return LAUNCHERS[0][0], 0


CPU_SETTINGS = "configuration/accelerate/cpu.yaml"
SEVERAL_CPUS_SETTINGS = "configuration/accelerate/several_cpus.yaml"

logger = logging.getLogger(__name__)  # not Accelerate's, which is not up


def has_peers() -> bool:
    """Return whether a launcher has started several processes, of which this is one."""
    return any(os.environ.get(size, "").isdecimal() and int(os.environ[size]) > 1 for _, size in LAUNCHERS)


def is_main_process() -> bool:
    """Return whether this process is the first of all; also true without a launcher."""
    return launched_rank()[1] == 0


def check_joined(num_processes: int) -> None:
    """Raise RunError where this is not its launcher's first process, but Accelerate knows no other."""
    name, rank = launched_rank()
    # It would train beside the first one in its folder, whose lock only the first one takes, and score nothing.
    if rank > 0 and num_processes == 1:
        raise RunError(
            f"{name} is {rank}, but this process knows no other; start several by torchrun or accelerate launch, or "
            f"unset {name}"
        )


def check_srun() -> None:
    """Refuse several tasks of srun that do not know each other: each would train alone, all of them in one folder.

    Raises:
        RunError: with what to launch instead.
    """
    # srun sets this count for the tasks of a step; a batch script or a shell in an allocation does not have it.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    sizes = [int(os.environ[size]) for _, size in LAUNCHERS if os.environ.get(size, "").isdecimal()]
    processes = max(sizes, default=1)
    if tasks > processes:
        raise RunError(
            f"srun has started {tasks} tasks (SLURM_STEP_NUM_TASKS), but this process knows of {processes}; start one "
            "torchrun per node, as configuration/slurm/train.sbatch does, or unset SLURM_STEP_NUM_TASKS if each "
            "task has an output folder of its own"
        )


def was_restarted() -> bool:
    """Return whether torchrun restarted these processes after one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def check_restarts() -> None:
    """Refuse to run where torchrun has been asked to restart workers but could not.

    By default it shares one address store between the attempts, where restarted workers find the addresses of the
    dead ones (pytorch issue 135712).

    Raises:
        RunError: with the environment variable to set.
    """
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    shares_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    # Refused now, rather than hours later, when the first worker dies.
    if restarts and shares_store:
        raise RunError(
            "torchrun --max-restarts would fail on the addresses of dead workers; set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment, and use --standalone or --rdzv_backend c10d"
        )


def check_devices() -> None:
    """Refuse several processes without a GPU for each; warn where one is launched for a GPU that is not there.

    Raises:
        RunError: with what to launch instead.
    """
    # Accelerate would let each process train alone, all of them in one folder.
    devices = torch.accelerator.device_count()
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE", "1"))
    if has_peers() and not on_cpu and processes > devices:
        raise RunError(
            f"{processes} processes are launched on this machine, but it shows {devices} GPUs; launch one per GPU "
            f"(--num_processes; CUDA_VISIBLE_DEVICES may hide some), or train on the CPU with {CPU_SETTINGS} or "
            f"{SEVERAL_CPUS_SETTINGS}"
        )
    # Only a launcher sets it to false: without one, a machine without a GPU is as good as any.
    if "ACCELERATE_USE_CPU" in os.environ and not on_cpu and not devices and not has_peers():
        logger.warning(f"no GPU is visible: training on the CPU, as {CPU_SETTINGS} would")
