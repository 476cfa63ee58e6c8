"""All checks of ``atlasd doctor``, in the order they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from atlasd.commands import check_daemon, check_files, check_machine
from atlasd.commands.finding import Finding
from atlasd.errors import ConfigError
from atlasd.paths import Paths, paths

CHECKS: tuple[Callable[[Paths], Iterator[Finding]], ...] = (
    check_machine.python,
    check_machine.torch,
    check_machine.kernels,
    check_machine.hardware,
    check_files.settings,
    check_files.own_folders,
    check_files.cache,
    check_files.secrets,
    check_daemon.socket,
    check_daemon.port,
    check_files.database,
    check_daemon.model,
    check_machine.watches,
    check_machine.editors,
)


def run_all() -> list[Finding]:
    """Every check; one that fails itself is a finding too."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(paths())
        except ConfigError:
            continue  # the check of the settings has told it
        except Exception as error:
            found.append(Finding(check.__name__, "bad", f"{type(error).__name__}: {error}"))
    return found
