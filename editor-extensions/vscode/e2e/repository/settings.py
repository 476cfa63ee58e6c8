"""Settings of a program, kept in a file of JSON."""

import json
import os


def names(path):
    if not isinstance(path, str):
        return None
    with open(path) as file:
        return sorted(json.load(file))


def size(path):
    if not isinstance(path, str):
        return None
    return os.path.getsize(path)
