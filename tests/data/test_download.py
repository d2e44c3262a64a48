"""Downloads from mirrors that cut, stall, lie, change or die: what came is kept, what is wrong is not, and why is said."""

import hashlib
import http.server
import json
import os
import resource
import subprocess
import sys
import threading

import pytest
from test_data import archive, python_layout

from conftest import ROOT, wait_for, with_settings
from fbnet.data import download as module
from fbnet.data.dataset import read_dataset
from fbnet.data.download import check_archive, download
from fbnet.errors import InputError

CONTENT = bytes(hashlib.shake_128(b"an archive").digest(1 << 19))
DEAD = "http://127.0.0.1:9/cifar-10.tar.gz"


def checksum_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


CHECKSUM = checksum_of(CONTENT)


class Mirror:
    """Serves one file on loopback, by ranges. `faults` are taken one a request, each some words of those below."""

    def __init__(self, content=CONTENT, faults=()):
        self.content, self.faults, self.tags, self.asked = content, list(faults), {"ETag": '"1"'}, []
        self.released = threading.Event()
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.asked.append(self.headers["Range"])
                mirror.answer(self, mirror.faults.pop(0) if mirror.faults else "")

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/cifar-10.tar.gz"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request, fault):
        if "dead" in fault:
            return request.send_error(503)
        whole = len(self.content)
        wanted = request.headers["If-Range"] in (None, *self.tags.values()) or "deaf" in fault
        start = int(request.headers["Range"][6:-1]) if request.headers["Range"] and wanted and "whole" not in fault else 0
        end = (start + whole) // 2 if "piece" in fault else whole
        status = 416 if start >= whole else 206 if start else 200
        said = {200: "", 206: f"bytes {'0' if 'lie' in fault else start}-{end - 1}/{whole}", 416: f"bytes */{whole}"}[status]
        request.send_response(status)
        headers = self.tags | {"Content-Length": str(max(end - start, 0)), "Content-Range": said}
        headers |= {"Content-Encoding": "gzip"} if "gzip" in fault else {}
        for name, value in headers.items():
            if value:
                request.send_header(name, value)
        request.end_headers()
        stops = "cut" in fault or "stall" in fault
        request.wfile.write(self.content[start : (start + end) // 2 if stops else end])
        if "stall" in fault:
            self.released.wait(60)

    def stop(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def mirrors(monkeypatch):
    """Make a mirror of such a content and such faults; nobody waits long for them."""
    monkeypatch.setattr(module, "PAUSE_S", 0)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.5)
    made = []

    def mirror(*arguments):
        made.append(Mirror(*arguments))
        return made[-1]

    yield mirror
    for each in made:
        each.stop()


def fetched(folder, *mirrors, checksum=CHECKSUM):
    """What a download from such mirrors gives; nothing is left beside it."""
    path, _ = download([mirror.url for mirror in mirrors], checksum, folder)
    assert list(folder.iterdir()) == [path]
    return path.read_bytes()


def test_a_mirror_that_cuts_or_stalls_again_and_again_is_gone_on_with(mirrors, tmp_path):
    mirror = mirrors(CONTENT, ["cut"] * 5 + ["stall", "cut"])
    assert fetched(tmp_path, mirror) == CONTENT
    assert len(mirror.asked) - 1 > module.TRIES
    size = len(CONTENT)
    assert mirror.asked == [None, *(f"bytes={size - (size >> number)}-" for number in range(1, 8))]


def test_a_mirror_that_always_cuts_and_knows_no_ranges_is_given_up(mirrors, tmp_path):
    mirror = mirrors(CONTENT, ["whole cut"] * 100)
    with pytest.raises(InputError, match="Connection broken"):
        download([mirror.url], CHECKSUM, tmp_path)
    assert len(mirror.asked) == 1 + module.TRIES  # the first gained something


FROM_HALF = f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        (["dead"], [None, None]),
        (["cut", "dead"], [None, FROM_HALF, FROM_HALF]),
        (["cut", "whole"], [None, FROM_HALF]),
        (["cut", "whole cut"], [None, FROM_HALF, FROM_HALF]),
        (["cut", "lie"], [None, FROM_HALF, None]),
        (["cut", "piece"], [None, FROM_HALF, f"bytes={len(CONTENT) * 3 // 4}-"]),
        (["cut", "gzip"], [None, FROM_HALF]),
        (["gzip"], [None]),
    ],
    ids=lambda words: ", ".join(map(str, words)),
)
def test_the_archive_is_whole_whatever_a_mirror_does(mirrors, tmp_path, faults, asked):
    mirror = mirrors(CONTENT, faults)
    assert fetched(tmp_path, mirror) == CONTENT
    assert mirror.asked == asked


def broken_off(mirror, folder, checksum=CHECKSUM):
    """A run in which a mirror gives half of the archive and then nothing more."""
    mirror.faults = ["cut", *["dead"] * module.TRIES]
    with pytest.raises(InputError, match="503"):
        download([mirror.url], checksum, folder)
    mirror.asked.clear()
    return next(folder.glob("*.part"), None)


@pytest.mark.parametrize(
    ("tags", "later", "asked"),
    [
        ({"ETag": '"1"'}, {"ETag": '"1"'}, [FROM_HALF]),
        ({"Last-Modified": "Mon, 01 Jun 2009 00:00:00 GMT"}, {"Last-Modified": "Mon, 01 Jun 2009 00:00:00 GMT"}, [FROM_HALF]),
        ({"ETag": 'W/"1"', "Last-Modified": "then"}, {"ETag": 'W/"2"', "Last-Modified": "then"}, [FROM_HALF]),
        ({}, {}, [None]),
        ({"ETag": 'W/"1"'}, {"ETag": 'W/"1"'}, [None]),
    ],
    ids=["etag", "time", "weak etag and time", "nothing", "weak etag"],
)
def test_without_a_checksum_the_next_run_goes_on_where_the_mirror_tells_its_files_apart(mirrors, tmp_path, tags, later, asked):
    mirror = mirrors()
    mirror.tags = tags
    broken_off(mirror, tmp_path, None)
    mirror.tags = later
    assert fetched(tmp_path, mirror, checksum=None) == CONTENT
    assert mirror.asked == asked


@pytest.mark.parametrize("faults", [[], ["deaf"]], ids=["If-Range", "deaf"])
@pytest.mark.parametrize("size", [1 << 19, 1 << 20, 1 << 10])
def test_pieces_of_a_file_that_has_changed_are_not_mixed(mirrors, tmp_path, size, faults):
    mirror = mirrors()
    broken_off(mirror, tmp_path, None)
    mirror.content, mirror.tags, mirror.faults = hashlib.shake_128(b"another").digest(size), {"ETag": '"2"'}, [*faults]
    assert fetched(tmp_path, mirror, checksum=None) == mirror.content
    assert mirror.asked == [FROM_HALF, *([None] if faults else [])]


def test_a_part_is_of_one_address_and_one_checksum(mirrors, tmp_path):
    mirror, other = mirrors(), mirrors()
    mirror.tags = other.tags = {}
    assert broken_off(mirror, tmp_path / "address")
    assert fetched(tmp_path / "address", other) == CONTENT
    assert other.asked == [None]
    assert broken_off(mirror, tmp_path / "checksum")
    mirror.content = CONTENT[::-1]
    assert fetched(tmp_path / "checksum", mirror, checksum=checksum_of(mirror.content)) == mirror.content
    assert mirror.asked == [None]


@pytest.mark.parametrize(
    ("kept", "asked"), [(1 << 19, [f"bytes={1 << 19}-"]), ((1 << 19) + 1, [f"bytes={(1 << 19) + 1}-", None])]
)
def test_a_part_that_is_whole_is_taken_and_one_that_is_longer_is_not(mirrors, tmp_path, kept, asked):
    mirror = mirrors()
    part = broken_off(mirror, tmp_path)
    part.write_bytes((CONTENT + b"more")[:kept])
    assert fetched(tmp_path, mirror) == CONTENT
    assert mirror.asked == asked


def test_a_wrong_checksum_goes_to_the_next_mirror_and_leaves_nothing(mirrors, tmp_path):
    wrong, right = mirrors(CONTENT[::-1]), mirrors()
    assert fetched(tmp_path, wrong, right) == CONTENT
    broken_off(wrong, tmp_path / "cut")
    with pytest.raises(InputError) as refused:
        download([wrong.url, DEAD], CHECKSUM, tmp_path / "cut")
    assert wrong.asked == [FROM_HALF]
    assert not list((tmp_path / "cut").glob("*.part"))
    found = hashlib.sha256(wrong.content).hexdigest()
    assert f"{wrong.url} (what it gives has the sha256 {found}, but dataset.checksum is {CHECKSUM[7:]})" in str(refused.value)
    assert f"{DEAD} (" in str(refused.value)
    assert "Connection refused" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_disk_that_is_full_is_told_and_the_next_run_goes_on(mirrors, tmp_path):
    mirror = mirrors()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, before[1]))  # what is longer cannot be written
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}/\w+\.part'"):
            download([mirror.url], CHECKSUM, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fetched(tmp_path, mirror) == CONTENT
    assert mirror.asked == [None, FROM_HALF]


def test_an_archive_that_is_there_is_not_fetched_again_unless_it_is_another(mirrors, tmp_path):
    mirror, url = mirrors(), "http://host.example/~kriz/cifar-10-python.tar.gz?x=1"
    archive = tmp_path / "64052566-cifar-10-python.tar.gz"  # the name from the first version on
    archive.write_bytes(CONTENT)
    assert download([mirror.url, url], CHECKSUM, tmp_path) == (archive, url)
    assert not mirror.asked
    archive.unlink()
    path, _ = download([mirror.url], CHECKSUM, tmp_path)
    path.write_bytes(b"changed")
    assert fetched(tmp_path, mirror) == CONTENT


@pytest.fixture
def without_waiting(tmp_path):
    """An environment in which the script does not wait between two tries."""
    (tmp_path / "hasty").mkdir()
    lines = ["import sys, time", "if 'download_cifar' in str(sys.orig_argv[1:2]):", "    time.sleep = lambda seconds: None"]
    (tmp_path / "hasty/sitecustomize.py").write_text("\n".join(lines), encoding="utf-8")
    return os.environ | {"PYTHONPATH": str(tmp_path / "hasty")}


def test_a_killed_run_leaves_what_the_next_one_goes_on_with(script, mirrors, tmp_path, without_waiting):
    dead, mirror = mirrors(b"", ["dead"] * 100), mirrors(archive(python_layout()), ["stall"])
    options = ["--name", "cifar10", "--url", dead.url, "--url", mirror.url, "--checksum", checksum_of(mirror.content)]
    command = [sys.executable, ROOT / "workflow/scripts/download_cifar.py", *options, "--out", tmp_path / "data/cifar10"]
    with subprocess.Popen(command, env=without_waiting, stderr=subprocess.DEVNULL) as process:
        folder = tmp_path / "data/.downloads"
        wait_for(lambda: any(part.stat().st_size > 100_000 for part in folder.glob("*.part")), process)
        process.kill()
    [part] = folder.glob("*.part")
    size = part.stat().st_size
    done = script("download_cifar", *options, "--out", tmp_path / "data/cifar10", env=without_waiting)
    assert done.returncode == 0, done.stderr
    assert mirror.asked == [None, f"bytes={size}-"]
    assert len(read_dataset(tmp_path / "data/cifar10").train_labels) == 100
    source = json.loads((tmp_path / "data/cifar10/dataset.json").read_text(encoding="utf-8"))["source"]
    assert source == {"archive": mirror.url, "sha256": checksum_of(mirror.content)[7:]}
    assert [path.suffix for path in folder.iterdir()] == [".gz"]


def test_mirrors_that_are_dead_end_a_run_before_anything_is_measured(workflow, mirrors, without_waiting):
    dead = mirrors(b"", ["dead"] * 100)
    workflow.configure(with_settings(dataset={"name": "cifar10", "url": [dead.url, DEAD]}, space="fbnet_small"))
    done = workflow(env=without_waiting)
    assert done.returncode != 0
    assert f"dataset.url: no archive from {dead.url} (503 Server Error" in done.stdout
    assert f"; {DEAD} (HTTPConnectionPool" in done.stdout
    assert "Traceback" not in done.stdout
    assert len(dead.asked) == 2 * module.TRIES  # once more by the default profile
    assert not (workflow.folder / "results/logs/profile_latency").exists()


def test_a_local_archive_with_another_checksum_is_refused(tmp_path):
    path = tmp_path / "local.tar.gz"
    path.write_bytes(CONTENT)
    check_archive(path, CHECKSUM)
    check_archive(path, None)
    with pytest.raises(InputError, match=f"dataset.archive {path} has the md5 .*, but dataset.checksum is 0000"):
        check_archive(path, f"md5:{'0' * 32}")
