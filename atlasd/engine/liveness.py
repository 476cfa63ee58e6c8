"""Whether the engine process lives: for how long it has owed an answer, and what it did meanwhile.

Seconds are counted in looks that the daemon itself was awake for. So neither a suspended machine
nor a daemon that was stopped along with its engine takes silence for a hang.
"""

from __future__ import annotations

from pathlib import Path

LOOK_S = 1.0
"""How often the daemon looks; a look counts for so long, however late it comes."""

STILL_S = 15.0
"""An engine that owes an answer and does nothing at all for so long hangs."""

LOADING_STILL_S = 60.0
"""While a model loads, it may wait for others as long as this: a driver, a network disk."""

AT_WORK_S = 600.0
"""No forward pass takes so long, not even of a model that is read from the disk each time."""

LEAST_WORK = 0.05
"""Share of a processor that counts as work. Threads that wait for Python's lock take a little."""

WORKING_STATES = frozenset("RD")
"""As proc(5) names them: running or about to, and waiting for a disk (swapping, too). Whoever is in
one of these is not known to hang."""

TRACED = "t"
"""In a debugger's hands, for as long as it likes."""


class Liveness:
    """One process, from its start to its end."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._processor_s = 0.0
        self.answers = 0
        """How often it has said something."""
        self.silent_s = 0.0
        """Since when it owes an answer."""
        self.still_s = 0.0
        """How much of that it did nothing in."""

    def answered(self) -> None:
        """It said something."""
        self.answers += 1
        self.owes_nothing()

    def owes_nothing(self) -> None:
        self.silent_s = self.still_s = 0.0

    def silent(self, *, at_work: bool) -> None:
        """Another ``LOOK_S`` has passed, in which it owed an answer and gave none."""
        self.silent_s += LOOK_S
        if not at_work:
            self.still_s += LOOK_S

    def hangs(self, *, loading: bool) -> bool:
        """Whether it is certain enough to end it. While a model loads, work may take any time."""
        if loading:
            return self.still_s >= LOADING_STILL_S
        return self.still_s >= STILL_S or self.silent_s >= AT_WORK_S

    def at_work(self) -> bool | None:
        """Whether it, or a compiler it has started, did something since this was asked last; None
        while a debugger holds it, which counts as no time at all."""
        import psutil  # type: ignore[import-untyped]

        before, self._processor_s = self._processor_s, 0.0
        states = set[str]()
        try:
            process = psutil.Process(self._pid)
            for one in (process, *process.children(recursive=True)):
                times = one.cpu_times()
                self._processor_s += times.user + times.system
                states |= _thread_states(one.pid)
        except psutil.Error:  # one of them has just ended
            return True
        if TRACED in states:
            return None
        return bool(WORKING_STATES & states) or self._processor_s - before > LEAST_WORK * LOOK_S


def _thread_states(pid: int) -> set[str]:
    """The states of a process's threads, a letter each; empty where the system does not tell."""
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.add(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2][1])
        except (OSError, IndexError):
            continue
    return states
