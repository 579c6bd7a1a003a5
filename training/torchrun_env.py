"""What torchrun says in the environment.

Read before Accelerate is up: creating its state already connects the processes and chooses the devices.
"""

import os

from artifacts.run_folder import RunError


def has_peers() -> bool:
    """Return whether a launcher has started several processes, of which this is one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main_process() -> bool:
    """Return whether this process is the first of all; also true without a launcher."""
    return not has_peers() or os.environ.get("RANK", "0") == "0"


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
