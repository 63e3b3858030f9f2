"""Data: one truth on several nodes."""

__all__: list[str] = []
