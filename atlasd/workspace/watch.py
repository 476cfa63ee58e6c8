"""Noticing that files change, on Linux with one inotify watch per folder that is not ignored.

watchdog's recursive watches would also cover ignored trees (``node_modules`` alone may use up the
system's watches) and pass over folders silently once the limit is reached, so its ``InotifyFD`` is
used directly. Elsewhere watchdog's own observer serves. Only *which path* changed is reported, not
how: whoever listens looks at the file system, which makes every way of saving and every order of
events come out the same.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

try:
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyConstants,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchDescriptor,
    )
except ImportError:  # not on Linux
    INOTIFY = False
else:
    INOTIFY = True

Changed = Callable[[str], None]
"""Called with a path relative to the root, on the watching thread."""
Lost = Callable[[str], None]
"""Events were lost ("": looking again once is enough), or cannot be had: why, and what to do."""


class Watch(Protocol):
    """Of one root."""

    def add(self, folder: str) -> None:
        """Watch the entries of a folder ("" is the root) from now on."""
        ...

    def stop(self) -> None: ...


def start_watch(root: Path, changed: Changed, lost: Lost) -> Watch:
    """The best watch this system has; ``lost`` may be called at once if it has none."""
    if not INOTIFY:
        return ObserverWatch(root, changed)
    try:
        return InotifyWatch(root, changed, lost, InotifyFD())
    except OSError as error:
        lost(limit_message(error))
        return NoWatch()


class InotifyWatch:
    """Folders are added as the scan comes to them; those that go away are taken out here."""

    def __init__(self, root: Path, changed: Changed, lost: Lost, inotify: InotifyFD) -> None:
        self._root = os.fsencode(root)
        self._changed, self._lost = changed, lost
        self._inotify = inotify
        In = InotifyConstants
        self._mask = (
            In.IN_CLOSE_WRITE | In.IN_MOVED_FROM | In.IN_MOVED_TO | In.IN_CREATE | In.IN_DELETE
            | In.IN_ATTRIB | In.IN_ONLYDIR | In.IN_DONT_FOLLOW | In.IN_EXCL_UNLINK
        )  # fmt: skip
        self._gone = In.IN_MOVED_FROM | In.IN_DELETE
        self._moved = In.IN_MOVE_SELF
        self._lock = threading.Lock()
        self._folders: dict[int, str] = {}
        self._descriptors: dict[str, int] = {}
        self._exhausted = False
        inotify.start()

    def add(self, folder: str) -> None:
        if self._exhausted or folder in self._descriptors:
            return
        path = os.path.join(self._root, os.fsencode(folder)) if folder else self._root
        try:
            # Whoever watches a folder is told of its own moves by the one above, but for the root.
            mask = self._mask if folder else self._mask | self._moved
            descriptor = self._inotify.add_callback(path, Mask(mask), self, _id(folder))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EMFILE):
                self._exhausted = True
                self._lost(limit_message(error))
            return
        with self._lock:
            if descriptor >= 0:  # watchdog gives -1 for a folder that may not be read
                self._folders[descriptor] = folder
                self._descriptors[folder] = descriptor

    def stop(self) -> None:
        self._inotify.stop()
        self._inotify.join()

    def on_event(self, event: InotifyEvent) -> None:
        folder = self._folders.get(event.wd)
        if folder is None:
            return
        name = os.fsdecode(event.name)
        path = f"{folder}/{name}" if folder and name else folder or name
        if event.mask & self._moved:
            self._forget("")
        elif event.is_directory and event.mask & self._gone:
            self._forget(path)
        self._changed(path)

    def on_watch_deleted(self, wd: int) -> None:
        with self._lock:
            folder = self._folders.pop(wd, None)
            if folder is not None and self._descriptors.get(folder) == wd:
                del self._descriptors[folder]
        if folder == "":
            self._lost("")

    def on_queue_overflow(self) -> None:
        self._lost("")

    def _forget(self, folder: str) -> None:
        """A folder moved away keeps its watches under their old names: take them out."""
        below = f"{folder}/" if folder else ""
        with self._lock:
            gone = [
                (descriptor, name)
                for name, descriptor in self._descriptors.items()
                if name == folder or name.startswith(below)
            ]
            for descriptor, name in gone:
                del self._descriptors[name]
                if self._folders.get(descriptor) == name:
                    del self._folders[descriptor]
        self._inotify.remove_callbacks([(WatchDescriptor(wd), _id(name)) for wd, name in gone])


def _id(folder: str) -> CallbackId:
    """By folder, because a moved one may be watched under both names for a moment."""
    return CallbackId(hash(folder))


class ObserverWatch(FileSystemEventHandler):
    """Where the system watches whole trees by itself (macOS, Windows)."""

    def __init__(self, root: Path, changed: Changed) -> None:
        self._root, self._changed = root, changed
        self._observer = Observer()
        self._observer.schedule(self, str(root), recursive=True)
        self._observer.start()

    def add(self, folder: str) -> None:
        """All folders are watched already."""

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("opened", "closed_no_write"):
            return
        for path in (event.src_path, event.dest_path):
            if path:
                relative = os.path.relpath(os.fsdecode(path), self._root)
                self._changed("" if relative == "." else relative.replace(os.sep, "/"))


class NoWatch:
    """Nothing is noticed: the owner looks again from time to time."""

    def add(self, folder: str) -> None: ...

    def stop(self) -> None: ...


def limit_message(error: OSError) -> str:
    """What ran out, what happens now, and how to get more of it."""
    name = "max_user_instances" if error.errno == errno.EMFILE else "max_user_watches"
    try:
        limit = int(Path("/proc/sys/fs/inotify", name).read_text())
    except (OSError, ValueError):
        return f"File watching is not available here ({error.strerror}): looking again regularly."
    more = max(524288, limit * 4) if name == "max_user_watches" else max(1024, limit * 4)
    return (
        f"The system's file watches are used up (fs.inotify.{name} = {limit}): looking again "
        f"regularly instead, so changes are seen later. "
        f"To mend it: sudo sysctl fs.inotify.{name}={more}"
    )
