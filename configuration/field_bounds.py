"""Checks of a recipe's values, with messages that name the field, its bound and what was found; marks of fields."""

PATH = {"is_path": True}  # metadata of a field, or of each value of a dict, in which `~` is the home folder


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition is true."""
    if not condition:
        raise ValueError(message)


def require_at_most(section, limits: dict[str, float]) -> None:
    """Raise ValueError where a field is above its limit, beyond which no machine or no arithmetic could follow."""
    for name, limit in limits.items():
        value = getattr(section, name)
        require(value is None or value <= limit, f"{name} must be at most {limit}, found {value}")
