"""Counts the words of files."""

import sys
from collections import Counter


def count(path):
    with open(path) as file:
        return Counter(file.read().split())


def main():
    for path in sys.argv[1:]:
        for word, times in count(path).most_common(10):
            print(path, word, times)


