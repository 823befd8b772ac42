"""OHIF, a viewer that radiologists use, in a headless browser over Orthanc's DICOMweb."""

from __future__ import annotations

import http.client
import mimetypes
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.services import missing

VERSION = "3.13.2"
DIST = (
    Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "scorenode" / f"ohif-{VERSION}"
)
"""Where ``deploy/install-test-tools.sh`` unpacks the npm package."""
DICOM_WEB = "/dicom-web"
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
"""Drawing without a graphics card."""
SLOW_MS = 120_000
WHEEL_MS = 150
"""Between two turns of the wheel: quicker ones are taken for one."""
SCREEN = {"width": 1400, "height": 900}
CONFIG = """window.config = {
  routerBasename: '/', extensions: [], modes: [], showStudyList: true,
  customizationService: {}, investigationalUseDialog: { option: 'never' },
  showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false,
  showLoadingIndicator: true, strictZSpacingForVolumeViewport: false,
  defaultDataSourceName: 'pacs',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'pacs',
    configuration: {
      friendlyName: 'PACS', name: 'pacs',
      qidoRoot: '/dicom-web', wadoRoot: '/dicom-web', wadoUriRoot: '/dicom-web',
      qidoSupportsIncludeField: true, supportsReject: false, supportsFuzzyMatching: false,
      supportsWildcard: true, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, omitQuotationForMultipartRequest: true,
      dicomUploadEnabled: false, bulkDataURI: { enabled: true, relativeResolution: 'studies' }
    }
  }]
};
"""
mimetypes.add_type("application/wasm", ".wasm")
mimetypes.add_type("text/javascript", ".js")


def installed() -> str:
    """Path of a browser; skips where it or OHIF is missing, fails in CI."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        missing("the browser chromium")
    if not (DIST / "index.html").exists():
        missing(f"OHIF {VERSION} (deploy/install-test-tools.sh)")
    pytest.importorskip("playwright", reason="playwright is not installed")
    return browser


class _Handler(BaseHTTPRequestHandler):
    """The built site, its configuration, and Orthanc's DICOMweb behind the same address."""

    protocol_version = "HTTP/1.1"
    upstream = ""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(DICOM_WEB):
            self._forward()
        elif path == "/app-config.js":
            self._send(200, "text/javascript", CONFIG.encode())
        else:
            file = (DIST / path.lstrip("/")).resolve()
            if not (file.is_relative_to(DIST.resolve()) and file.is_file()):
                file = DIST / "index.html"  # other addresses are the site's own
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._send(200, kind, file.read_bytes())

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        kept = ("accept", "content-type", "range", "host")  # Orthanc writes addresses by Host
        headers = {k: v for k, v in self.headers.items() if k.lower() in kept}
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            kind = answer.getheader("Content-Type") or "application/octet-stream"
            self._send(answer.status, kind, answer.read())
        finally:
            connection.close()

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def site(orthanc_port: int) -> Iterator[str]:
    """Serve OHIF over an Orthanc; its address."""
    handler = type("Handler", (_Handler,), {"upstream": f"127.0.0.1:{orthanc_port}"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Viewer:
    """A page of OHIF that shows one study; the next study is opened as somebody else opens it."""

    browser: Any
    address: str
    page: Any = None

    def open(self, study_uid: str) -> None:
        """Load a study and wait for its first image."""
        if self.page is not None:
            self.page.context.close()
        self.page = self.browser.new_context(viewport=SCREEN).new_page()
        self.page.set_default_timeout(SLOW_MS)
        self.page.goto(f"{self.address}/viewer?StudyInstanceUIDs={study_uid}")
        self.page.wait_for_selector("canvas", timeout=SLOW_MS)
        skip = self.page.get_by_text("Skip all")  # who comes for the first time is shown around
        skip.first.wait_for(state="visible", timeout=SLOW_MS)
        skip.first.click()

    def show(self, series_number: int) -> None:
        """Double-click the thumbnail of a series; a question whether to load it is answered."""
        self.page.get_by_text(f"S:{series_number}", exact=True).first.dblclick()

    def say_yes(self) -> None:
        """Answer the question whether a segmentation is to be loaded."""
        button = self.page.get_by_role("button", name="Yes", exact=True)
        button.first.wait_for(state="visible", timeout=SLOW_MS)
        button.first.click()

    def scroll(self, images: int) -> None:
        """Turn the wheel over the image, one image at a time."""
        left, top, width, height = self.canvas()
        self.page.mouse.move(left + width // 2, top + height // 2)
        for _ in range(images):
            self.page.mouse.wheel(0, 100)
            self.page.wait_for_timeout(WHEEL_MS)

    def wait_for_text(self, text: str) -> None:
        """Wait until the page says something."""
        self.page.get_by_text(text).first.wait_for(timeout=SLOW_MS)

    def picture(self) -> NDArray[np.int16]:
        """What is on the screen, RGB, shape (rows, columns, 3)."""
        png = self.page.screenshot()
        with Image.open(BytesIO(png)) as image:
            return np.asarray(image.convert("RGB")).astype(np.int16)

    def canvas(self) -> tuple[int, int, int, int]:
        """Place of the image on the screen: left, top, width, height."""
        box = None
        while box is None:  # the canvas is made anew when something else is shown
            self.page.locator("canvas").first.wait_for(state="visible", timeout=SLOW_MS)
            box = self.page.locator("canvas").first.bounding_box()
        return int(box["x"]), int(box["y"]), int(box["width"]), int(box["height"])


@contextmanager
def viewer(address: str) -> Iterator[Viewer]:
    """Run the browser."""
    from playwright.sync_api import sync_playwright

    browser_path = installed()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        try:
            yield Viewer(browser, address)
        finally:
            browser.close()
