"""Which texts without a name are settings that hold secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from atlasd.workspace.nameless import holds_settings_alone
from atlasd.workspace.never import never_file, secret_path

SETTINGS = {
    ".env": "# the shop\nDATABASE_HOST=db\n\nexport MAIL_PASSWORD='tiger and more'\nDEBUG=\n",
    ".npmrc": "registry=https://npm.example/\n//npm.example/:_authToken=abc\n@shop:scope=here\n",
    ".netrc": "machine example.org\n  login me\n  password tiger\n",
    ".pgpass": "db.example:5432:shop:me:tiger\n*:*:*:me:lion\n",
    ".htpasswd": "me:$apr1$x$y\nyou:{SHA}abc=\n",
}
ORDINARY = {
    "Python": "import os\n\nWIDTH = 10\nHEIGHT = 20\n",
    "a call": "call(\n    a=1,\n    b=2,\n)\n",
    "C": "#include <stdio.h>\n\nint main(void) {\n    int a=1;\n}\n",
    "a Makefile": "CC=gcc\nCFLAGS=-O2\n\nall: main\n\t$(CC) main.c\n",
    "a script": "#!/bin/sh\nNAME=value\nif [ -z $NAME ]; then\n",
    "TOML": "[server]\nport=8012\n[log]\n",
    "YAML": "services:\n  db:\n    image: postgres\n",
    "comparisons": "a==b\nb=>c\n",
    "prose": "default values are good\nlogin first, please\nthen go on\n",
    "nothing": "",
    "comments": "# only\n; these\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_settings_are_known_wherever_the_cursor_stands(name: str, ends: str) -> None:
    assert never_file(name)
    text = SETTINGS[name].replace("\n", ends)
    for cursor in range(len(text) + 1):
        assert holds_settings_alone(text[:cursor], text[cursor:]), text[:cursor]
    assert holds_settings_alone(text + "unfini", "")
    assert holds_settings_alone("unfini", "\n" + text)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_text_is_not(name: str) -> None:
    text = ORDINARY[name]
    for cursor in {0, len(text), text.rfind("\n") + 1}:
        assert not holds_settings_alone(text[:cursor], text[cursor:])


def test_no_program_of_this_project_is_taken_for_settings() -> None:
    root = Path(__file__).resolve().parents[3]
    for file in [*root.glob("atlasd/**/*.py"), *root.glob("editor-extensions/**/lua/**/*.lua")]:
        text = file.read_text()
        half = text.find("\n", len(text) // 2)
        assert not text.strip() or not holds_settings_alone(text[:half], text[half:]), file


def test_a_secret_is_told_from_what_is_left_out_for_other_reasons() -> None:
    for path in (".env", "/home/me/.ssh/config", "deploy/id_rsa", "a/.env.local"):
        assert secret_path(path)
    for path in ("shop_pb2.py", "poetry.lock", "node_modules/a/index.d.ts", "src/a.py", "a.log"):
        assert not secret_path(path)
