"""What completion must know of a language: comments, how blocks open and close, how a file names
others. Languages that are not listed get a default that fits most.

A line of data can be very long, and everybody waits while an expression tries its ways through one:
where two repetitions could share what they match, they are possessive (``++``) or bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

Blocks = Literal["indent", "braces", "end"]


@dataclass(frozen=True)
class Language:
    """``id`` is the LSP language id; ``blocks`` says what ends a block: less indentation, a
    brace, or a word such as ``end``."""

    id: str
    extensions: tuple[str, ...] = ()
    line_comment: str = "#"
    block_comment: tuple[str, str] | None = None
    blocks: Blocks = "braces"
    openers: re.Pattern[str] = re.compile(r"[\{\(\[]\s*$")
    """Found at the end of a line (comments taken off) that opens a block."""
    closers: re.Pattern[str] = re.compile(r"\s*+[\}\)\]][\)\]\};,]*+\s*+$")
    """Matches a line that does nothing but close what was opened."""
    continues: re.Pattern[str] = re.compile(r"\s*[\}\)\]]")
    """Matches a line that goes on with the statement of a block although it stands outside."""
    definition: re.Pattern[str] = re.compile(r"(?!)")
    """Matches a line that begins something of its own: a function, a type, a test."""
    leads: re.Pattern[str] = re.compile(r"(?!)")
    """Matches a line that belongs to the definition below it: decorators, attributes."""
    imports: tuple[re.Pattern[str], ...] = ()
    """Each finds statements that name other files; the groups are modules and names."""
    quotes: str = "\"'"
    keywords: frozenset[str] = frozenset()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_C_KEYWORDS = _words(
    "auto bool break case char class const continue default delete do double else enum extern "
    "false float for goto if include inline int long namespace new nullptr private protected "
    "public return short signed sizeof size_t static struct switch template this true typedef "
    "typename union unsigned using virtual void volatile while NULL"
)
_BRACE_CONTINUES = re.compile(r"\s*[\}\)\]]|\s*(else|catch|finally)\b")

PYTHON = Language(
    id="python",
    extensions=(".py", ".pyi", ".pyw"),
    block_comment=None,
    blocks="indent",
    openers=re.compile(r"(:|[\{\(\[])\s*$"),
    continues=re.compile(r"\s*([\}\)\]]|(else|elif|except|finally|case)\b)"),
    definition=re.compile(r"\s*(async\s+def|def|class)\b|if __name__\b"),
    leads=re.compile(r"\s*@"),
    imports=(
        re.compile(r"^[ \t]*from\s+([.\w]+)\s+import\s+(?:\(([^)]{0,4000})\)|([^\n(#]+))", re.M),
        re.compile(r"^[ \t]*import\s+([\w., ]+)", re.M),
    ),
    keywords=_words(
        "False None True and as assert async await break class continue def del elif else except "
        "finally for from global if import in is lambda nonlocal not or pass raise return self "
        "try while with yield cls str int float bool list dict tuple set len print range super"
    ),
)

_SCRIPT_IMPORTS = (
    re.compile(
        r"\bimport\b\s*+(?:type\s++)?((?:(?!import\b)[\w$*]++|[{},]|\s++)+?)"
        r"from\s*+['\"]([^'\"]+)['\"]"
    ),
    re.compile(r"\bimport\s*+['\"]([^'\"]+)['\"]"),
    re.compile(
        r"\b(?:const|let|var)\s++((?:(?!(?:const|let|var)\b)[\w$]++|[{},:]|\s++)++)"
        r"=\s*+require\(\s*+['\"]([^'\"]+)['\"]"
    ),
)
_SCRIPT_KEYWORDS = _words(
    "any as async await boolean break case catch class const continue debugger default delete do "
    "else enum export extends false finally for from function if implements import in instanceof "
    "interface let new null number of private protected public readonly return static string "
    "super switch this throw true try type typeof undefined unknown var void while with yield"
)
_SCRIPT_DEFINITION = re.compile(
    r"\s*(export\s+)?(default\s+)?(abstract\s+)?"
    r"((async\s+)?function\b|class\b|interface\b|enum\b|namespace\b|type\s+\w+\s*[<=])"
    r"|\s*(export\s+)?(const|let)\s+\w+\s*(:[^=]*)?=\s*(async\s*)?(\(.*\)|\w+)\s*(:[^=]{0,300})?=>"
    r"|(describe|it|test)\("
)


def _like_c(id_: str, *extensions: str, **more: Any) -> Language:
    """A language with C's comments and braces."""
    return Language(
        id=id_,
        extensions=extensions,
        line_comment="//",
        block_comment=("/*", "*/"),
        continues=_BRACE_CONTINUES,
        **more,
    )


def _script(id_: str, *extensions: str) -> Language:
    return _like_c(
        id_,
        *extensions,
        openers=re.compile(r"([\{\(\[]|=>)\s*$"),
        definition=_SCRIPT_DEFINITION,
        leads=re.compile(r"\s*@|\s*/?\*"),
        imports=_SCRIPT_IMPORTS,
        quotes="\"'`",
        keywords=_SCRIPT_KEYWORDS,
    )


TYPESCRIPT = _script("typescript", ".ts", ".mts", ".cts")
TYPESCRIPT_REACT = _script("typescriptreact", ".tsx")
JAVASCRIPT = _script("javascript", ".js", ".mjs", ".cjs")
JAVASCRIPT_REACT = _script("javascriptreact", ".jsx")

RUST = _like_c(
    "rust",
    ".rs",
    definition=re.compile(
        r"\s*(pub(\([^)]*\))?\s+)?(default\s+)?(async\s+)?(const\s+)?(unsafe\s+)?"
        r"(fn|struct|enum|trait|impl|mod|union|macro_rules!)\b"
    ),
    leads=re.compile(r"\s*#!?\[|\s*//[/!]"),
    imports=(
        re.compile(
            r"^[ \t]*(?:pub\s+)?use\s+([\w:]+?)(?:::)?(?:\{([^}]*)\})?\s*(?:as\s+\w+)?;", re.M
        ),
        re.compile(r"^[ \t]*(?:pub\s+)?mod\s+(\w+)\s*;", re.M),
    ),
    # A single quote is a lifetime as often as a character.
    quotes='"',
    keywords=_words(
        "as async await break const continue crate dyn else enum extern false fn for if impl in "
        "let loop match mod move mut pub ref return self Self static struct super trait true type "
        "unsafe use where while Some None Ok Err bool str String Vec Option Result usize u8 u16 "
        "u32 u64 i32 i64 f32 f64"
    ),
)

GO = _like_c(
    "go",
    ".go",
    definition=re.compile(r"(func|type)\b"),
    leads=re.compile(r"//"),
    imports=(
        re.compile(r"^import\s+(?:[\w.]+\s+)?\"([^\"]+)\"", re.M),
        re.compile(r"^[ \t]+(?:[\w.]+\s+)?\"([\w./-]+)\"\s*$", re.M),
    ),
    quotes="\"'`",
    keywords=_words(
        "any bool break byte case chan const continue default defer else error fallthrough false "
        "float64 for func go goto if import int int32 int64 interface len make map nil package "
        "range return rune select string struct switch true type uint var err"
    ),
)

C = _like_c(
    "c",
    ".c",
    ".h",
    definition=re.compile(
        r"(?!return\b|else\b)[A-Za-z_][\w\s\*]*\b\w+\s*\(([^;]*$|[^;{}]*\)\s*\{)"
        r"|(typedef\s+)?(struct|enum|union)\b[^;]*$"
    ),
    leads=re.compile(r"\s*//|\s*/?\*"),
    imports=(re.compile(r"^[ \t]*#\s*include\s*[\"<]([^\">]+)[\">]", re.M),),
    keywords=_C_KEYWORDS,
)

CPP = _like_c(
    "cpp",
    ".cpp",
    ".cc",
    ".cxx",
    ".hpp",
    ".hh",
    ".hxx",
    ".cu",
    ".cuh",
    definition=re.compile(
        r"\s*(template\s*<|namespace\b|(class|struct|enum|union)\b[^;]*$)"
        r"|[A-Za-z_][\w:<>,\s\*&~]*\([^;]*$"
    ),
    leads=re.compile(r"\s*//|\s*/?\*|\s*\[\["),
    imports=C.imports,
    keywords=_C_KEYWORDS,
)

LUA = Language(
    id="lua",
    extensions=(".lua",),
    line_comment="--",
    block_comment=("--[[", "]]"),
    blocks="end",
    openers=re.compile(
        r"(\b(then|do|else|repeat|function\s*+[\w.:]*+\s*+\([^()]*\))|[\{\(\[])\s*$"
    ),
    closers=re.compile(r"\s*+(end\b[\s\)\]\},;]*+|until\b.*|[\}\)\]][\)\]\};,]*+\s*+)$"),
    continues=re.compile(r"\s*([\}\)\]]|(end|else|elseif|until)\b)"),
    definition=re.compile(r"\s*(local\s+)?function\b|[\w.:]+\s*=\s*function\b|(describe|it)\("),
    leads=re.compile(r"\s*---"),
    imports=(re.compile(r"require\s*+\(?\s*+['\"]([\w./-]+)['\"]"),),
    keywords=_words(
        "and break do else elseif end false for function goto if in local nil not or repeat return "
        "then true until while self pairs ipairs string table type require print"
    ),
)

SHELL = Language(
    id="shellscript",
    extensions=(".sh", ".bash", ".zsh"),
    blocks="end",
    openers=re.compile(r"(\b(then|do|else|in)|[\{\(])\s*$"),
    closers=re.compile(r"\s*+(fi|done|esac|\}|\)|;;)\s*+;?\s*+$"),
    continues=re.compile(r"\s*([\}\)]|(fi|done|esac|else|elif)\b)"),
    definition=re.compile(r"(function\s+)?\w+\s*\(\)"),
)
RUBY = Language(
    id="ruby",
    extensions=(".rb",),
    blocks="end",
    openers=re.compile(
        r"(\b(do|then|else|begin)(\s*\|[^|]*\|)?|[\{\(\[])\s*$|^\s*(def|class|module|if|unless|while)\b"
    ),
    closers=re.compile(r"\s*+(end\b[\s\)\]\},;]*+|[\}\)\]][\)\]\};,]*+\s*+)$"),
    continues=re.compile(r"\s*([\}\)\]]|(end|else|elsif|rescue|ensure|when)\b)"),
    definition=re.compile(r"\s*(def|class|module)\b"),
)
JAVA = _like_c(
    "java",
    ".java",
    definition=re.compile(r"\s*(public|private|protected|static|final|abstract)\b[^;=]*[\{\(]"),
    leads=re.compile(r"\s*@|\s*//|\s*/?\*"),
    imports=(re.compile(r"^import\s+(?:static\s+)?([\w.]+)\s*;", re.M),),
    keywords=_C_KEYWORDS,
)
FURTHER = (
    _like_c("csharp", ".cs", keywords=_C_KEYWORDS),
    _like_c("kotlin", ".kt", ".kts", keywords=_C_KEYWORDS),
    _like_c("swift", ".swift", keywords=_C_KEYWORDS),
    _like_c("scala", ".scala", ".sc", keywords=_C_KEYWORDS),
    _like_c("dart", ".dart", keywords=_C_KEYWORDS),
    _like_c("php", ".php", keywords=_C_KEYWORDS),
    _like_c("zig", ".zig", keywords=_C_KEYWORDS),
)
"""Known by their comments and braces alone."""

DEFAULT = Language(id="plaintext", continues=_BRACE_CONTINUES)
PROSE = Language(
    id="markdown",
    extensions=(".md", ".markdown", ".rst", ".txt"),
    line_comment="",
    blocks="indent",
    openers=re.compile(r"(?!)"),
    closers=re.compile(r"(?!)"),
    continues=re.compile(r"(?!)"),
    quotes="",
)

LANGUAGES = (
    PYTHON,
    TYPESCRIPT,
    TYPESCRIPT_REACT,
    JAVASCRIPT,
    JAVASCRIPT_REACT,
    RUST,
    GO,
    C,
    CPP,
    LUA,
    SHELL,
    RUBY,
    JAVA,
    *FURTHER,
    PROSE,
)
_BY_ID = {language.id: language for language in LANGUAGES}
_BY_EXTENSION = {extension: each for each in LANGUAGES for extension in each.extensions}


def language_of(id: str | None, path: str | None) -> Language:
    """The language a client names, or else the one the path's extension tells."""
    if id and (known := _BY_ID.get(id)):
        return known
    if path and (known := _BY_EXTENSION.get(PurePosixPath(path).suffix.lower())):
        return known
    return DEFAULT
