"""Every setting there is: one frozen dataclass tree. None is needed; each has a default.

A value comes from the first place that has it: a command-line option, an environment variable
(``ATLASD_SERVER_PORT`` for ``server.port``), ``config.toml``, the default below.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from atlasd.errors import ConfigError


def setting(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its one-line help and the values that are allowed."""
    metadata = {"help": help, "least": least, "most": most, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelSettings:
    """Which model runs, and how."""

    name: str = setting(
        "bundled", "bundled, a folder, a .gguf file, a Hugging Face id or a name of Ollama's"
    )
    dtype: str = setting(
        "auto", "Number format of the weights", choices=("auto", "fp32", "bf16", "int8", "int4")
    )
    context: int = setting(
        0, "Positions a slot holds; 0: what the model and memory allow", least=0, most=1 << 20
    )
    threads: int = setting(0, "CPU threads; 0: measured once per machine", least=0, most=1024)


@dataclass(frozen=True)
class EngineSettings:
    """The engine process."""

    drafting: bool = setting(True, "Draft ahead; the text is the same either way")
    idle_minutes: float = setting(
        30.0, "Unload the model after so many minutes without a request; 0: never", least=0
    )


@dataclass(frozen=True)
class ServerSettings:
    """The HTTP server on TCP. The UNIX socket needs no settings."""

    host: str = setting("127.0.0.1", "Address to listen on; anything but loopback needs a token")
    port: int = setting(8012, "TCP port; 0: no TCP, the UNIX socket alone", least=0, most=65535)
    token: bool = setting(True, "Ask for the token on TCP")
    allowed_hosts: tuple[str, ...] = setting(
        (), "Further names clients may use in Host, as name or name:port"
    )
    allowed_origins: tuple[str, ...] = setting(
        (), "Origins of web pages that may call, such as vscode-webview://*"
    )
    max_body_mb: float = setting(8.0, "Largest request body, in MB", least=0.01, most=1024)
    load_wait_s: float = setting(
        120.0, "How long a request waits for the model to load", least=0, most=3600
    )


@dataclass(frozen=True)
class CompletionSettings:
    """Completions at the cursor."""

    max_tokens: int = setting(128, "Tokens of a suggestion, at most", least=1, most=4096)


@dataclass(frozen=True)
class LogSettings:
    """The log of the daemon. It never holds code or prompts."""

    level: str = setting("info", "What is logged", choices=("debug", "info", "warning", "error"))
    max_mb: float = setting(5.0, "Size at which the log is rotated, in MB", least=0.01, most=1024)
    files: int = setting(3, "Rotated logs that are kept", least=0, most=100)


@dataclass(frozen=True)
class Config:
    """All settings in force."""

    model: ModelSettings = field(default_factory=ModelSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    completion: CompletionSettings = field(default_factory=CompletionSettings)
    log: LogSettings = field(default_factory=LogSettings)
    explicit: frozenset[str] = frozenset()
    """Names of the settings that were given rather than left at their defaults."""


@dataclass(frozen=True)
class Setting:
    """One setting as data: for the docs, the tests and the error messages."""

    name: str
    type: Any
    default: Any
    help: str
    least: float | None
    most: float | None
    choices: tuple[str, ...]

    @property
    def variable(self) -> str:
        return "ATLASD_" + self.name.upper().replace(".", "_")

    @property
    def allowed(self) -> str:
        """What values are allowed, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.type is bool:
            return "true or false (on or off)"
        if self.type in (int, float):
            kind = "a whole number" if self.type is int else "a number"
            if self.least is not None and self.most is not None:
                return f"{kind} from {self.least:g} to {self.most:g}"
            return kind if self.least is None else f"{kind}, at least {self.least:g}"
        if self.type is str:
            return "a text that is not empty"
        return "a list of texts"


def _collect() -> dict[str, Setting]:
    found = {}
    for section, section_type in get_type_hints(Config).items():
        if not dataclasses.is_dataclass(section_type):
            continue
        hints = get_type_hints(section_type)
        for item in dataclasses.fields(section_type):
            name = f"{section}.{item.name}"
            found[name] = Setting(name, hints[item.name], item.default, **item.metadata)
    return found


SETTINGS = _collect()
"""Every setting by its dotted name."""


def load(
    file: Path, environ: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None
) -> Config:
    """The settings in force. ``options`` are command-line values by dotted name; None is unset.

    Raises ConfigError naming the key, the value and what is allowed.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for name, value in _read_file(file).items():
        values[name] = _checked(_known(name, file), value, f"in {file}")
    for item in SETTINGS.values():
        if (text := env.get(item.variable)) is not None:
            values[item.name] = _checked(item, _parse(item, text), f"in ${item.variable}")
    for name, value in (options or {}).items():
        if value is not None:
            values[name] = _checked(SETTINGS[name], value, "on the command line")
    return _build(values)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}.", "Mend or remove it.") from None
    except OSError as error:
        mend = f"Try: chmod u+r {file}" if isinstance(error, PermissionError) else ""
        raise ConfigError(f"{file} cannot be read: {error.strerror}.", mend) from None
    flat: dict[str, Any] = {}
    for section, content in document.items():
        if isinstance(content, dict):
            flat.update({f"{section}.{key}": value for key, value in content.items()})
        else:
            flat[section] = content
    return flat


def _known(name: str, file: Path) -> Setting:
    if name in SETTINGS:
        return SETTINGS[name]
    close = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.5)
    tail = [known for known in SETTINGS if known.split(".")[1] == name]
    suggestion = (close or tail or [""])[0]
    raise ConfigError(
        f"Unknown setting {name} in {file}.",
        f"Did you mean {suggestion}?" if suggestion else f"There are: {', '.join(SETTINGS)}.",
    )


def _parse(item: Setting, text: str) -> Any:
    """An environment variable's text as the value TOML would have had; itself if it is none."""
    if item.type is bool:
        words = {"on": True, "true": True, "1": True, "yes": True}
        return {**words, "off": False, "false": False, "0": False, "no": False}.get(
            text.strip().lower(), text
        )
    if item.type in (int, float):
        try:
            return item.type(text)
        except ValueError:
            return text
    if item.type is str:
        return text
    return [part.strip() for part in text.split(",") if part.strip()]


def _checked(item: Setting, value: Any, where: str) -> Any:
    if item.type is float and type(value) is int:
        value = float(value)
    if get_args(item.type):
        good = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
        value = tuple(value) if good else value
    else:
        good = type(value) is item.type
    if good and item.choices:
        good = value in item.choices
    if good and item.type in (int, float):
        good = (item.least is None or value >= item.least) and (
            item.most is None or value <= item.most
        )
    if good and item.type is str:
        good = bool(value.strip())
    if not good:
        raise ConfigError(
            f"{item.name} = {value!r} {where} cannot be used.", f"Allowed: {item.allowed}."
        )
    return value


def _build(values: Mapping[str, Any]) -> Config:
    sections: dict[str, Any] = {}
    for section, section_type in get_type_hints(Config).items():
        if isinstance(section_type, type) and dataclasses.is_dataclass(section_type):
            prefix = section + "."
            chosen = {
                name.removeprefix(prefix): value
                for name, value in values.items()
                if name.startswith(prefix)
            }
            sections[section] = section_type(**chosen)
    return Config(**sections, explicit=frozenset(values))
