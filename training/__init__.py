"""The recipe that made the bundled models."""
