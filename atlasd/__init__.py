"""A coding assistant that lives on a developer's own workstation."""

__version__ = "0.1.0"
