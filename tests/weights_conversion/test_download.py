"""The downloader against a local server: nothing half-written is ever taken for whole."""

import hashlib
import multiprocessing
import os
import random
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from weights_conversion import DownloadError, cache_directory, fetch

BODY = random.Random(0).randbytes(1_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY; `script` holds what to do with the next requests, `seen` their ranges."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pth"

    def handle_error(self, request, client_address):
        pass  # clients that went away


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.seen.append(asked)
        step = self.server.script.pop(0) if self.server.script else {}
        if "status" in step:
            self.send_error(step["status"])
            return
        body, start = step.get("body", BODY), 0
        if asked and step.get("resumes", True):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            start = step.get("start", start)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if step.get("length", True):
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + 1000])
        time.sleep(step.get("pause", 0))
        self.wfile.write(body[start + 1000 : step.get("break_at")])


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXATTR_OFFLINE", raising=False)
    return tmp_path / "cache"


def get(server, **options):
    options = {"filename": "weights.pth", "sha256": SHA256[:8], "wait": 0.0} | options
    return fetch(server.url, **options)


def whole(path):
    return path.read_bytes() == BODY


def test_downloads_once(server, cache):
    path = get(server)
    assert path == cache / "downloads" / "weights.pth"
    assert whole(path)
    assert get(server, sha256=SHA256) == path
    assert server.seen == [None]
    assert not path.with_name("weights.pth.part").exists()


def test_directory(server, tmp_path):
    assert get(server, directory=tmp_path / "mine") == tmp_path / "mine" / "weights.pth"


def test_cache_directory(cache, monkeypatch):
    assert cache_directory() == cache
    monkeypatch.delenv("JAXATTR_CACHE")
    assert cache_directory().name == "jaxattr"


def test_interrupted_and_resumed_in_one_call(server):
    server.script = [{"break_at": 300_000}, {"break_at": 500_000}]
    assert whole(get(server))
    assert server.seen == [None, "bytes=300000-", "bytes=500000-"]


def test_interrupted_and_resumed_by_a_later_call(server, cache):
    server.script = [{"break_at": 400_000}]
    with pytest.raises(DownloadError, match="broke after 400000 of 1000000 bytes"):
        get(server, retries=0)
    assert not (cache / "downloads" / "weights.pth").exists()
    assert whole(get(server))
    assert server.seen == [None, "bytes=400000-"]


def test_server_that_cannot_resume(server):
    server.script = [{"break_at": 400_000}, {"resumes": False}]
    assert whole(get(server))


def test_server_that_resumes_earlier_than_asked(server):
    server.script = [{"break_at": 400_000}, {"start": 399_000}]
    assert whole(get(server))


def test_server_that_resumes_later_than_asked(server, cache):
    server.script = [{"break_at": 400_000}, {"start": 401_000}]
    assert whole(get(server))


def test_part_of_another_file(server, cache):
    part = cache / "downloads" / "weights.pth.part"
    part.parent.mkdir(parents=True)
    for size in 400_000, 1_000_000, 2_000_000:
        part.write_bytes(bytes(size))
        if size == 400_000:
            with pytest.raises(DownloadError, match="SHA-256"):
                get(server)
            assert not part.exists()
        assert whole(get(server))
        (cache / "downloads" / "weights.pth").unlink()


def test_part_longer_than_the_file(server, cache):
    part = cache / "downloads" / "weights.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(2_000_000))
    server.script = [{"resumes": False}]
    assert whole(get(server))


def test_part_that_is_whole(server, cache):
    part = cache / "downloads" / "weights.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY)
    assert whole(get(server))


def test_wrong_hash(server, cache):
    server.script = [{"body": b"<html>sign in to this network</html>"}]
    with pytest.raises(DownloadError, match=f"gave a file with SHA-256 .* but {SHA256[:8]}"):
        get(server)
    assert [path.name for path in (cache / "downloads").iterdir()] == ["weights.pth.lock"]
    assert whole(get(server))


def test_truncated_body_without_length(server, cache):
    server.script = [{"break_at": 400_000, "length": False}]
    with pytest.raises(DownloadError, match="SHA-256"):
        get(server)
    assert not (cache / "downloads" / "weights.pth").exists()
    assert whole(get(server))


def test_not_found_is_final(server, cache):
    server.script = [{"status": 404}]
    target = cache / "downloads" / "weights.pth"
    with pytest.raises(DownloadError, match=f"{server.url} .*404.* put the file .* at {target}"):
        get(server)
    assert server.seen == [None]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_that_passes(server, status):
    server.script = [{"status": status}, {"status": status}]
    assert whole(get(server))
    assert len(server.seen) == 3


def test_trouble_that_stays(server):
    server.script = [{"status": 500}] * 9
    with pytest.raises(DownloadError, match="500"):
        get(server, retries=2)
    assert len(server.seen) == 3


def test_no_network(cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/weights.pth"
    with pytest.raises(DownloadError, match=f"{url} .*refused.* at {cache}/downloads/weights.pth"):
        fetch(url, filename="weights.pth", sha256=SHA256, retries=1, wait=0.0)


def test_offline(server, cache, monkeypatch):
    monkeypatch.setenv("JAXATTR_OFFLINE", "1")
    with pytest.raises(DownloadError, match=f"OFFLINE.*{server.url} at {cache}/downloads/weights"):
        get(server)
    assert server.seen == []
    path = cache / "downloads" / "weights.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert get(server) == path
    path.write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match="OFFLINE"):
        get(server)


def test_damaged_file_is_fetched_again(server):
    path = get(server)
    path.write_bytes(BODY[:1000])
    assert whole(get(server))


@pytest.mark.slow
def test_two_processes_at_once(server, cache):
    server.script = [{"pause": 0.5, "break_at": 500_000}]
    context = multiprocessing.get_context("spawn")
    ready, paths = context.Barrier(2), context.SimpleQueue()
    arguments = (server.url, str(cache), ready, paths)
    processes = [context.Process(target=_fetch, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    path = cache / "downloads" / "weights.pth"
    assert [paths.get(), paths.get()] == [path, path]
    assert whole(path)
    assert server.seen == [None, "bytes=500000-"]  # the second process waited


def _fetch(url, cache, ready, paths):
    os.environ["JAXATTR_CACHE"] = cache
    ready.wait()
    paths.put(fetch(url, filename="weights.pth", sha256=SHA256, wait=0.0))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filename": "../weights.pth"}, "filename"),
        ({"filename": ""}, "filename"),
        ({"sha256": ""}, "sha256"),
        ({"sha256": "0676BA61"}, "sha256"),
    ],
)
def test_bad_arguments(server, options, match):
    with pytest.raises(ValueError, match=match):
        get(server, **options)


def test_only_http():
    with pytest.raises(ValueError, match="http"):
        fetch("file:///etc/passwd", filename="x", sha256=SHA256)
