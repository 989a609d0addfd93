"""A headless Chromium that is driven through a pipe: no package, no network."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe"
_CODES = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}


class Page:
    """An open page.

    Attributes:
        faults: what its scripts threw.
    """

    def __init__(self, send: Callable[..., Any], faults: list[str]):
        self.send, self.faults = send, faults

    def run(self, script: str) -> Any:
        """Return the value of an expression, of a promise when it is there."""
        given = {"expression": script, "awaitPromise": True, "returnByValue": True}
        found = self.send("Runtime.evaluate", **given)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key of the keyboard, and let it go."""
        text = {" ": " ", "Enter": "\r"}.get(key, "")
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            given = {"key": key, "windowsVirtualKeyCode": _CODES[key], "text": text}
            self.send("Input.dispatchKeyEvent", type=kind, **given)

    def resize(self, width: int, height: int) -> None:
        """Show the page on a screen of another size."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self.send("Emulation.setDeviceMetricsOverride", **screen)


@contextmanager
def opened(file: Path, profile: Path) -> Iterator[Page]:
    """Open a file in Chromium; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    (theirs, write), (read, back) = os.pipe(), os.pipe()
    command = f'exec "$0" {_FLAGS} --user-data-dir="$1" 3<&{theirs} 4>&{back} 2>/dev/null'
    start = ["bash", "-c", command, program, str(profile)]
    with subprocess.Popen(start, pass_fds=(theirs, back)) as process:
        os.close(theirs)
        os.close(back)
        with os.fdopen(write, "wb", 0) as to, os.fdopen(read, "rb") as answers:
            faults: list[str] = []
            number, session, rest = 0, {}, b""

            def send(method: str, **params: Any) -> Any:
                nonlocal number, rest
                number += 1
                message = {"id": number, "method": method, "params": params, **session}
                to.write(json.dumps(message).encode() + b"\0")
                while True:
                    while b"\0" not in rest:
                        more = os.read(answers.fileno(), 1 << 16)
                        assert more, "Chromium has ended"
                        rest += more
                    line, _, rest = rest.partition(b"\0")
                    answer = json.loads(line)
                    if answer.get("method") == "Runtime.exceptionThrown":
                        faults.append(answer["params"]["exceptionDetails"]["text"])
                    if answer.get("id") == number:
                        assert "error" not in answer, answer["error"]
                        return answer["result"]

            try:
                target = send("Target.createTarget", url="about:blank")["targetId"]
                attached = send("Target.attachToTarget", targetId=target, flatten=True)
                session = {"sessionId": attached["sessionId"]}
                page = Page(send, faults)
                send("Runtime.enable")
                send("Page.enable")
                send("Page.navigate", url=file.as_uri())
                page.run(
                    "new Promise(done => { const ready = () => document.readyState === 'complete'"
                    f" && location.href === '{file.as_uri()}' ? done() : setTimeout(ready, 20);"
                    " ready(); })"
                )
                yield page
            finally:
                process.kill()
