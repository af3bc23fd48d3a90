"""A number and what it counts, as people say it: `1 vote`, `2 votes`. Pure."""


def counted(count: int, one: str = "vote", many: str = "votes") -> str:
    """Put a count before its noun, which may have a verb behind it."""
    return f"{count} {one if count == 1 else many}"
