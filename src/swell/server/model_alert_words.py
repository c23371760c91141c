"""Words that alerts about models share."""


def replica_count(count: int) -> str:
    """So many replicas."""
    return "1 replica" if count == 1 else f"{count} replicas"


def roughly(seconds: float) -> str:
    """A length of time in minutes, and from two hours on in hours."""
    minutes = round(seconds / 60)
    if minutes < 120:
        return "a minute" if minutes <= 1 else f"{minutes} minutes"
    return f"{minutes // 60} hours"
