"""The dashboard in a real browser: its policy lets its own script run, and the numbers arrive."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import aiohttp
import pytest

from atlasd.engine.protocol import StreamStats
from tests.served import served

pytestmark = pytest.mark.e2e

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
async def test_the_page_shows_the_streams_in_a_browser(tmp_path: Path) -> None:
    assert BROWSER is not None
    async with served(tmp_path / "home") as house:
        stats = StreamStats(output_tokens=12, steps=4, decode_ms=100.0, foreseen=7.0,
                            drafted={"positions": 10}, accepted={"positions": 8})  # fmt: skip
        house.says("return 12345\n", stats=stats)
        async with house.unix() as client:
            body = {"prefix": "def f():\n    ", "suffix": ", y)\n", "repository": "/my/shapes"}
            assert (await client.post("/atlasd/v1/complete", json=body)).status == 200
        shown = await text_of(f"{house.base}/t/{house.token}/dashboard", tmp_path / "profile")
    assert "120/s" in shown
    assert "without drafting 140/s" in shown
    assert "8 of 10" in shown
    assert "/my/shapes" in shown


async def text_of(address: str, profile: Path) -> str:
    """What a page shows once numbers have come, asked over the browser's debugging protocol."""
    assert BROWSER is not None
    browsing = await asyncio.create_subprocess_exec(
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", address,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            told = profile / "DevToolsActivePort"
            while not await asyncio.to_thread(told.exists):  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0.1)
            port = (await asyncio.to_thread(told.read_text)).split()[0]
            pages = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
            (page,) = [one for one in pages if one["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"]) as asked:
                shown = ""
                while "/s" not in shown:
                    await asyncio.sleep(0.3)
                    expression = {"expression": "document.body.innerText"}
                    await asked.send_json(
                        {"id": 1, "method": "Runtime.evaluate", "params": expression}
                    )
                    shown = (await asked.receive_json())["result"]["result"].get("value", "")
                return str(shown)
    finally:
        browsing.terminate()
        await browsing.wait()
