"""File names to languages, by the LSP's language ids. A file without a language is not indexed."""

from __future__ import annotations

_BY_SUFFIX = {
    suffix: language
    for language, suffixes in {
        "python": "py pyi pyw pyx pxd",
        "typescript": "ts mts cts",
        "typescriptreact": "tsx",
        "javascript": "js mjs cjs",
        "javascriptreact": "jsx",
        "rust": "rs",
        "go": "go",
        "c": "c h",
        "cpp": "cc cpp cxx c++ hh hpp hxx h++ inl ipp tpp cuh",
        "cuda-cpp": "cu",
        "lua": "lua",
        "java": "java",
        "kotlin": "kt kts",
        "swift": "swift",
        "ruby": "rb rake gemspec",
        "php": "php",
        "csharp": "cs",
        "scala": "scala sc",
        "shellscript": "sh bash zsh fish ksh",
        "powershell": "ps1 psm1",
        "perl": "pl pm",
        "r": "r",
        "julia": "jl",
        "haskell": "hs",
        "ocaml": "ml mli",
        "elixir": "ex exs",
        "erlang": "erl hrl",
        "clojure": "clj cljs cljc",
        "zig": "zig",
        "nim": "nim",
        "dart": "dart",
        "sql": "sql",
        "html": "html htm",
        "vue": "vue",
        "svelte": "svelte",
        "css": "css",
        "scss": "scss",
        "less": "less",
        "json": "json jsonc json5",
        "yaml": "yaml yml",
        "toml": "toml",
        "ini": "ini cfg conf",
        "xml": "xml xsd xsl",
        "markdown": "md markdown mdx",
        "restructuredtext": "rst",
        "plaintext": "txt",
        "makefile": "mk",
        "cmake": "cmake",
        "dockerfile": "dockerfile",
        "proto": "proto",
        "graphql": "graphql gql",
        "terraform": "tf tfvars",
        "vim": "vim",
        "nix": "nix",
        "latex": "tex",
        "asm": "s asm",
        "objective-c": "m mm",
        "groovy": "groovy gradle",
        "solidity": "sol",
        "wgsl": "wgsl",
        "glsl": "glsl vert frag",
    }.items()
    for suffix in suffixes.split()
}
_BY_NAME = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "justfile": "just",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "jenkinsfile": "groovy",
    "build": "starlark",
    "build.bazel": "starlark",
    "workspace": "starlark",
    ".bashrc": "shellscript",
    ".vimrc": "vim",
    "readme": "plaintext",
}


def language_of(path: str) -> str | None:
    """The language id of a path, or None for a kind of file that is not text to work on."""
    name = path.rpartition("/")[2].lower()
    if found := _BY_NAME.get(name):
        return found
    stem, dot, suffix = name.rpartition(".")
    return _BY_SUFFIX.get(suffix) if dot and stem else None
