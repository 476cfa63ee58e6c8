"""Settings: where a value comes from, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from atlasd.config import SETTINGS, Config, load
from atlasd.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_no_setting_is_needed(file: Path) -> None:
    assert load(file, {}) == Config()


def test_a_file_changes_what_it_names(file: Path) -> None:
    file.write_text('[server]\nport = 9000\nallowed_hosts = ["box:9000"]\n[model]\nname = "m"\n')
    config = load(file, {})
    assert (config.server.port, config.server.allowed_hosts) == (9000, ("box:9000",))
    assert (config.model.name, config.engine.drafting) == ("m", True)
    assert config.explicit == {"server.port", "server.allowed_hosts", "model.name"}


def test_options_come_before_the_environment_and_that_before_the_file(file: Path) -> None:
    file.write_text("[server]\nport = 1\n[completion]\nmax_tokens = 1\n[log]\nfiles = 1\n")
    environ = {"ATLASD_SERVER_PORT": "2", "ATLASD_COMPLETION_MAX_TOKENS": "2"}
    config = load(file, environ, {"server.port": 3, "model.name": None})
    assert (config.server.port, config.completion.max_tokens, config.log.files) == (3, 2, 1)
    assert config.model.name == "bundled"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_help_a_default_that_is_allowed_and_is_in_the_docs(
    name: str, file: Path
) -> None:
    item = SETTINGS[name]
    assert 8 < len(item.help) < 90
    assert load(file, {}, {name: item.default}).explicit == {name}
    assert f"`{name}`" in (DOCS / "cli.md").read_text()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ATLASD_ENGINE_DRAFTING": "off"}, ("engine", "drafting", False)),
        ({"ATLASD_ENGINE_DRAFTING": "True"}, ("engine", "drafting", True)),
        ({"ATLASD_ENGINE_IDLE_MINUTES": "0.5"}, ("engine", "idle_minutes", 0.5)),
        ({"ATLASD_MODEL_NAME": "~/m"}, ("model", "name", "~/m")),
        (
            {"ATLASD_SERVER_ALLOWED_ORIGINS": "a://b, c://*"},
            ("server", "allowed_origins", ("a://b", "c://*")),
        ),
    ],
)
def test_the_environment_is_read(
    environ: dict[str, str], expected: tuple[str, str, object], file: Path
) -> None:
    section, field, value = expected
    assert getattr(getattr(load(file, environ), section), field) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[server]\nport = 70000\n", ["server.port", "70000", "0 to 65535"]),
        ('[server]\nport = "8012"\n', ["server.port", "'8012'", "a whole number"]),
        ("[server]\nport = true\n", ["server.port", "True"]),
        ("[server]\ntoken = 1\n", ["server.token", "true or false"]),
        ('[log]\nlevel = "loud"\n', ["log.level", "loud", "debug, info, warning, error"]),
        ('[model]\nname = " "\n', ["model.name", "not empty"]),
        ("[server]\nallowed_hosts = 'box'\n", ["server.allowed_hosts", "a list of texts"]),
        ("[engine]\nidle_minutes = -1\n", ["engine.idle_minutes", "-1", "at least 0"]),
        ("[server]\nprot = 1\n", ["server.prot", "Did you mean server.port?"]),
        ("port = 1\n", ["Unknown setting port", "Did you mean server.port?"]),
        ("[nonsense]\nx = 1\n", ["nonsense.x"]),
        ("[server\n", ["not valid TOML", "line 1"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    text: str, says: list[str], file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    for part in [*says, str(file)]:
        assert part in str(caught.value)


def test_a_wrong_environment_variable_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.port = 'many' in \$ATLASD_SERVER_PORT"):
        load(file, {"ATLASD_SERVER_PORT": "many"})


def test_bytes_that_are_no_text_are_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe[server]")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(file, {})


def test_a_file_that_is_a_folder_is_refused(file: Path) -> None:
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file, {})
