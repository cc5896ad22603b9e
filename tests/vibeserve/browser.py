"""A headless chromium, steered through the DevTools protocol: pages as a person's browser would show them."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

T = TypeVar("T")
DEADLINE_S = 90.0
"""For whatever is waited for; reached only when it never comes."""


class PageError(Exception):
    """What was asked of the page could not be done."""


def chromium() -> str | None:
    """The browser of this machine."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


@dataclass
class Browser:
    """One tab. A context manager; `complaints` collects whatever the console said that is an error or a warning."""

    complaints: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._home = tempfile.TemporaryDirectory(prefix="vibeserve-chromium-", ignore_cleanup_errors=True)
        program = chromium()
        assert program is not None, "expected chromium: apt install chromium"
        options = (
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu-sandbox", "--no-first-run",
            "--enable-unsafe-swiftshader", "--hide-scrollbars", "--remote-debugging-port=0",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
            f"--user-data-dir={self._home.name}", "about:blank",
        )  # fmt: skip
        self._process = subprocess.Popen((program, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._runner.run(self._connect())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_session"):
            self._runner.run(self._disconnect())
        self._process.terminate()
        self._process.wait(DEADLINE_S)
        self._runner.close()
        self._home.cleanup()

    async def _connect(self) -> None:
        port_file = Path(self._home.name) / "DevToolsActivePort"
        text = await self._until(lambda: _text(port_file), "chromium's debugging port")
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{text.split()[0]}/json/list") as response:
            pages = [page for page in await response.json() if page["type"] == "page"]
        self._socket = await self._session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
        self._number, self._answers = 0, dict[int, asyncio.Future[Any]]()
        self._reader = asyncio.create_task(self._read())
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._send(f"{domain}.enable")

    async def _disconnect(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()
        await self._session.close()

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                self._answers.pop(data["id"]).set_result(data)
            elif complaint := _complaint(data):
                self.complaints.append(complaint)

    async def _send(self, method: str, **params: Any) -> Any:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        data = await asyncio.wait_for(answer, DEADLINE_S)
        if "error" in data:
            raise PageError(f"{method}: {data['error']}")
        return data["result"]

    async def _until(self, look: Callable[[], T | Awaitable[T | None] | None], what: str) -> T:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            found = look()
            found = await found if isinstance(found, Awaitable) else found
            if found:
                return found
            assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s for {what}"
            await asyncio.sleep(0.05)

    def send(self, method: str, **params: Any) -> Any:
        """One command of the protocol."""
        return self._runner.run(self._send(method, **params))

    def js(self, expression: str) -> Any:
        """The value of an expression in the page, promises awaited."""
        return self._runner.run(self._js(expression))

    async def _js(self, expression: str) -> Any:
        result = await self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise PageError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression in the page is true; while a page is being replaced nothing is."""

        async def holds() -> Any:
            try:
                return await self._js(expression)
            except PageError:
                return None

        return self._runner.run(self._until(holds, expression))

    def open(self, url: str) -> str:
        """Load a page, wait until it says that it is complete, and give its visible text."""
        self.js("document.documentElement.dataset.page = 'leaving'")
        self.send("Page.navigate", url=url)
        self.until("['ready', 'failed'].includes(document.documentElement.dataset.page)")
        return self.text()

    def text(self) -> str:
        """What can be read on the page."""
        text: str = self.js("document.body.innerText")
        return text

    def window(self, width: int, height: int = 900, dark: bool = False, scale: float = 1.0) -> None:
        """Size of the view in CSS pixels, and the colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale}
        self.send("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, whole: bool = True) -> None:
        """A PNG of the view, or of the whole page."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def key(self, name: str) -> None:
        """Press and release a key such as Tab or Enter."""
        text = {"Enter": "\r"}.get(name, "")
        codes = {"Tab": 9, "Enter": 13}
        common = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _complaint(data: dict[str, Any]) -> str | None:
    method, params = data.get("method"), data.get("params", {})
    if method == "Runtime.exceptionThrown":
        details = params["exceptionDetails"]
        return str(details.get("exception", {}).get("description") or details["text"])
    if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
        return f"{params['entry']['text']} {params['entry'].get('url', '')}"
    if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
        return " ".join(str(arg.get("value", arg.get("description", ""))) for arg in params["args"])
    return None
