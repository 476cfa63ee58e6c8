"""The editors and clients that ``atlasd connect`` knows, each with what has to be pasted where."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

UNKNOWN_CONTEXT = 4096
"""Told while no model is loaded: as much as most have."""


@dataclass(frozen=True)
class Place:
    """Where the daemon is reached."""

    host: str
    port: int | None
    token: str
    socket: str
    model: str
    source: Path
    """The folder that holds ``editor-extensions``, if atlasd runs from its source."""
    context: int = UNKNOWN_CONTEXT
    """Tokens that a slot of the running model holds."""
    bridge: str = "atlasd-lsp"
    """The command of the bridge, with its folder."""

    @property
    def base(self) -> str:
        return f"http://{self.host}:{self.port or 8012}"

    @property
    def with_token(self) -> str:
        """For clients that cannot send a header."""
        return f"{self.base}/t/{self.token}"

    def extension(self, name: str) -> str:
        folder = self.source / "editor-extensions" / name
        return str(folder) if folder.is_dir() else f"/path/to/atlasd/editor-extensions/{name}"


@dataclass(frozen=True)
class Client:
    """One that can be connected."""

    help: str
    where: str
    paste: Callable[[Place], str]
    http: bool = True
    comment: str = "#"
    """What begins a comment there: people paste all that is printed."""


def _neovim(place: Place) -> str:
    return f"""
vim.opt.runtimepath:append({json.dumps(place.extension("neovim"))})
require("atlasd").setup({{ cmd = {{ {json.dumps(place.bridge)} }} }})
"""


def _vscode(place: Place) -> str:
    return f"""
(cd {shlex.quote(place.extension("vscode"))} && npm ci && npm run package && \\
 code --install-extension atlasd.vsix)

# and in settings.json:
"atlasd.command": [{json.dumps(place.bridge)}]
"""


def _helix(place: Place) -> str:
    return f"""
[language-server.atlasd]
command = {json.dumps(place.bridge)}

[[language]]
name = "python"
language-servers = ["pylsp", "atlasd"]
"""


def _lsp(place: Place) -> str:
    return place.bridge


def _llama_vim(place: Place) -> str:
    return f"""
let g:llama_config = {{
    \\ 'endpoint_fim':  '{place.base}/infill',
    \\ 'endpoint_inst': '{place.base}/v1/chat/completions',
    \\ 'api_key':       '{place.token}',
    \\ }}
"""


def _llama_vscode(place: Place) -> str:
    # Its requests for health and models carry no key, so the token goes into the address.
    return f"""
"llama-vscode.endpoint": "{place.with_token}",
"llama-vscode.endpoint_chat": "{place.with_token}",
"llama-vscode.endpoint_tools": "{place.with_token}",
"""


def _continue(place: Place) -> str:
    return f"""
name: atlasd
version: 1.0.0
schema: v1
models:
  - name: atlasd chat
    provider: openai
    model: {place.model}
    apiBase: {place.base}/v1
    apiKey: {place.token}
    roles: [chat, edit, apply]
  - name: atlasd completion
    provider: mistral
    model: {place.model}
    apiBase: {place.base}/v1/
    apiKey: {place.token}
    roles: [autocomplete]
"""


def _zed(place: Place) -> str:
    return f"""
"edit_predictions": {{
  "provider": "open_ai_compatible_api",
  "open_ai_compatible_api": {{
    "api_url": "{place.with_token}/v1/completions",
    "model": "{place.model}",
    "prompt_format": "qwen",
    "max_output_tokens": 64
  }}
}},
"language_models": {{
  "openai_compatible": {{
    "atlasd": {{
      "api_url": "{place.with_token}/v1",
      "available_models": [{{ "name": "{place.model}", "max_tokens": {place.context} }}]
    }}
  }}
}}
"""


def _minuet(place: Place) -> str:
    return f"""
require("minuet").setup({{
  provider = "openai_fim_compatible",
  n_completions = 1,
  context_window = 4096,
  provider_options = {{
    openai_fim_compatible = {{
      name = "atlasd",
      end_point = "{place.base}/v1/completions",
      api_key = function() return "{place.token}" end,
      model = "{place.model}",
      optional = {{ max_tokens = 64 }},
    }},
  }},
}})
"""


def _dashboard(place: Place) -> str:
    return f"{place.with_token}/dashboard"


def _ollama(place: Place) -> str:
    return f"""
export OLLAMA_HOST={place.with_token}
"""


def _tabby(place: Place) -> str:
    return f"""
[server]
endpoint = "{place.base}"
token = "{place.token}"
"""


def _openai(place: Place) -> str:
    return f"""
from openai import OpenAI

client = OpenAI(base_url="{place.base}/v1", api_key="{place.token}")
answer = client.completions.create(
    model="{place.model}", prompt="def fibonacci(n):\\n", suffix="\\n", max_tokens=64
)
print(answer.choices[0].text)
"""


def _aider(place: Place) -> str:
    return f"""
export OPENAI_API_BASE={place.base}/v1
export OPENAI_API_KEY={place.token}
aider --model openai/{place.model}
"""


def _llm(place: Place) -> str:
    return f"""
- model_id: atlasd
  model_name: {place.model}
  api_base: "{place.with_token}/v1"
"""


def _curl(place: Place) -> str:
    return f"""
curl {place.base}/v1/completions \\
  -H 'Authorization: Bearer {place.token}' -H 'Content-Type: application/json' \\
  -d '{{"prompt": "def fibonacci(n):\\n", "max_tokens": 64}}'
"""


CLIENTS: dict[str, Client] = {
    "neovim": Client("Neovim 0.10 or newer", "in init.lua", _neovim, http=False, comment="--"),
    "vscode": Client("Visual Studio Code", "in a terminal", _vscode, http=False),
    "helix": Client("Helix", "in languages.toml, for each language", _helix, http=False),
    "lsp": Client(
        "any other editor that speaks LSP", "as the command of a language server", _lsp, http=False
    ),
    "llama.vim": Client(
        "llama.vim as it is", "in .vimrc, before the plugin loads", _llama_vim, comment='"'
    ),
    "llama.vscode": Client(
        "llama.vscode as it is", "in settings.json", _llama_vscode, comment="//"
    ),
    "continue": Client("Continue", "~/.continue/config.yaml", _continue),
    "zed": Client("Zed", "in settings.json", _zed, comment="//"),
    "minuet": Client("minuet-ai.nvim", "in init.lua", _minuet, comment="--"),
    "dashboard": Client("the dashboard", "in a browser on this machine", _dashboard),
    "ollama": Client("clients of Ollama", "in a terminal, or as their host", _ollama),
    "tabby": Client("Tabby's plugins", "in ~/.tabby-client/agent/config.toml", _tabby),
    "openai": Client("the openai package", "Python", _openai),
    "aider": Client("aider", "in a terminal", _aider),
    "llm": Client("llm", "in extra-openai-models.yaml (see: llm logs path)", _llm),
    "curl": Client("curl", "in a terminal", _curl),
}
"""By the name one types."""
