"""What is masked before anything is stored or indexed, and what is left alone."""

from __future__ import annotations

import math
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.workspace import reading
from atlasd.workspace.reading import masked
from atlasd.workspace.secrets import MASK, entropy, find_secrets, mask

A = "Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zAb7c"  # random-looking, 36 characters
HEX = "9f86d081884c7d659a2feaa0c55ad015"

# kind, text; what stands between « and » is the secret
CAUGHT = [
    ("aws key id", "id = «AKIAIOSFODNN7EXAMPLE»"),
    ("value of secret", f'aws_secret_access_key = "«{A}»"'),
    ("github token", f"git clone with «ghp_{A}»"),
    ("github token", f"«github_pat_{A}»"),
    ("gitlab token", "GL: «glpat-x7Yd_92kLmNopQrStUvW»"),
    ("slack token", f"use «xoxb-{'1234567890-' * 2}{A[:24]}» there"),
    ("slack webhook", "https://hooks.slack.com/services/«T0000/B0000/a1b2c3d4e5f6g7h8»"),
    ("stripe key", f'stripe.key = "«sk_live_{A[:24]}»"'),
    ("google api key", f"key=«AIza{A[:35]}»&x"),
    ("google client secret", f"«GOCSPX-{A[:28]}»"),
    ("api key", f"export KEY=«sk-proj-{A}»"),
    ("npm token", f"//registry/:_authToken=«npm_{A}»"),
    ("pypi token", f"«pypi-AgEIcHlwaS5vcmc{A}»"),
    ("hugging face token", f"login(«hf_{A[:34]}»)"),
    ("json web token", "«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVP»"),
    ("sendgrid key", f"«SG.{A[:22]}.{A}»"),
    ("twilio key", f"sid «SK{HEX}»"),
    ("azure storage key", f"AccountName=x;AccountKey=«{A}{A}==»;"),
    ("databricks token", f"«dapi{HEX}»"),
    ("authorization header", f"Authorization: Bearer «{A}»"),
    ("password in a url", "postgres://user:«hunter2xyz»@host/db"),
    (
        "private key",
        "«-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----»\nx",
    ),
    ("private key", "«-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE»"),
    ("value of password", 'password = "«correct-horse9»"'),
    ("value of password", "db_password: '«s3cr3tpw!»'"),
    ("value of password", 'PASSWORD = "«swordfish»"'),
    ("value of passwd", '{"passwd": "«opensesame1»"}'),
    ("value of key", 'api_key = "«9a8b7c6d5e4f3a2b»"'),
    ("value of key", "API-KEY=«9a8b7c6d5e4f3a2b»"),
    ("value of token", "  token: «q1w2e3r4t5y6u7i8»"),
    ("value of secret", f"client_secret => '«{HEX}»'"),
    ("random token", f'cookie("{A[0]}«{A}xYz012»")'.replace(f'"{A[0]}«', '"«')),
]
LEFT = [
    "def password_hash(password: str) -> str:",
    'password = ""',
    'password = os.environ["DB_PASSWORD"]',
    'token = "<your token here>"',
    'password: "${{ secrets.DEPLOY }}"',
    'api_key = "your-api-key-goes-here"',
    'token = tokenizer.decode(ids)',
    'token_type = "access_token_grant"',
    "secret: {{ vault_secret }}",
    "key = value\nprimary_key = identifier_of_the_row",
    "import path/to/some/very/long/module/name/with/many/parts/in/it",
    "class AbstractSingletonProxyFactoryBeanConfigurationProviderImplementation: ...",
    "const kMaximumNumberOfSimultaneousConnectionsPerHost = 256;",
    "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "SOME_VERY_LONG_CONSTANT_NAME_WITH_64_AND_128_AND_256_BITS = 1",
    "https://example.org:8080/a@b",
    "user@host:path/to/file",
    "-----BEGIN CERTIFICATE-----",
    "test_2024_01_02_should_return_the_3_last_items_when_4_are_given",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "marked"), CAUGHT)
def test_a_secret_is_masked_and_what_surrounds_it_is_not(kind: str, marked: str) -> None:
    before, rest = marked.split("«")
    secret, after = rest.split("»")
    text = before + secret + after
    found = find_secrets(text)
    assert [(text[s.start : s.end]) for s in found] == [secret]
    assert kind in {s.kind for s in found} or kind.startswith("value")
    hidden = "".join("\n" if c == "\n" else MASK for c in secret)
    assert mask(text) == before + hidden + after


@pytest.mark.parametrize("text", LEFT)
def test_code_and_placeholders_are_left_alone(text: str) -> None:
    assert mask(text) == text


@given(st.text(max_size=400))
def test_masking_keeps_length_and_lines_and_is_stable(text: str) -> None:
    once = mask(text)
    assert len(once) == len(text)
    assert [i for i, c in enumerate(once) if c in "\r\n"] == [
        i for i, c in enumerate(text) if c in "\r\n"
    ]
    assert mask(once) == once


@given(st.integers(0, 5000), st.sampled_from(["ghp_", "sk-", "glpat-"]))
def test_a_token_is_found_wherever_it_stands_in_a_long_text(at: int, prefix: str) -> None:
    line = "value = compute(some_argument, other) + é\n"
    text = (line * 150)[:at]
    token = prefix + A
    whole = f"{text} {token} {line * 20}"
    assert token not in mask(whole)


def test_generated_tokens_are_seen_as_random_nearly_always() -> None:
    alphabet = string.ascii_letters + string.digits
    chooser = random.Random(1)
    tokens = ["".join(chooser.choice(alphabet) for _ in range(40)) for _ in range(300)]
    missed = [token for token in tokens if token in mask(f'x = "{token}"')]
    assert len(missed) <= 6


def test_masking_in_steps_gives_what_masking_at_once_gives() -> None:
    line = f'password = "hunter2xyz"\ntoken: {A}\nordinary_line = 1\n'
    text = line * 3000
    assert masked(text) == mask(text)
    key = f"-----BEGIN PRIVATE KEY-----\n{'A' * 64}\n-----END PRIVATE KEY-----\n"
    text = "x = 1\n" * 5450 + key + "y = 2\n" * 6000
    assert masked(text) == mask(text)
    assert "A" * 64 not in masked(text)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "x = 1\n",
                "    y = 2\n",
                "\n",
                'password = "hunter2xyz"\n',
                '    "token":\n        "' + A + '",\n',
                "https://me:" + A + "@host/\n",
                "-----BEGIN PRIVATE KEY-----\n" + "A" * 64 + "\n-----END PRIVATE KEY-----\n",
                "-----BEGIN PRIVATE KEY-----\nB\n",
                A + "\n",
                f"z = '{A}'; ",
            ]
        ),
        max_size=40,
    ),
    st.integers(40, 200),
)
def test_no_secret_is_missed_where_a_long_text_is_cut(parts: list[str], step: int) -> None:
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_STEP", step)
        in_steps = masked(text)
    assert len(in_steps) == len(text)
    at_once = mask(text)
    assert [i for i, c in enumerate(at_once) if c == "*" != in_steps[i]] == []


def test_entropy_is_shannons() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2
    assert math.isclose(entropy("aab"), 0.9182958, rel_tol=1e-6)
