"""The names of weights, with and without what wrappers add to them."""

# What torch.compile, DDP and DataParallel, FSDP and activation checkpointing put into the names of a module's weights.
WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def unwrap_name(name: str) -> str:
    """Return a weight's name without the parts that wrappers have added, at the front or within."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)
