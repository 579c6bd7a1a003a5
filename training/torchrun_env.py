"""What torchrun says in the environment, asked before Accelerate is up: its state settles devices and processes."""

import os

from artifacts.run_folder import RunError


def is_main_process() -> bool:
    """Tell whether this process is the first of all."""
    return os.environ.get("RANK", "0") == "0"


def was_restarted() -> bool:
    """Tell whether these processes were started anew after one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def check_restarts() -> None:
    """Refuse to run where torchrun is to restart workers but cannot.

    It lets them share one store of addresses, where restarted ones find those of the dead (pytorch issue 135712).

    Raises:
        RunError: it is so, with the way out.
    """
    promised = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if promised and shared:
        raise RunError(
            "torchrun --max-restarts would fail on the addresses of dead workers; set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment, and use --standalone or --rdzv_backend c10d"
        )
