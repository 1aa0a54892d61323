"""Ray Serve's commands on a local cluster of two nodes: `serve build`, `serve deploy`, `serve run`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from support.endpoint import Client, png, verdicts, wait_for, write_bundle
from support.job_cluster import BIN, HEAD, JobServer
from support.s3_server import free_ports

READY_SECONDS = 240


def serve(server: JobServer, *arguments: str, **variables: str) -> str:
    """Runs a command of Serve and returns its output."""
    ended = subprocess.run(
        [str(BIN / "serve"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**server.environment, **variables},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def answers(client: Client) -> bool:
    """Returns whether the endpoint is ready; nothing listens before its proxy has started."""
    try:
        return client.get("/readyz").status == 200
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_built_config_deploys_and_application_runs(job_server: JobServer, tmp_path: Path) -> None:
    root, settings, built = (tmp_path / name for name in ("bundles", "settings.yaml", "built.yaml"))
    version = write_bundle(root, "part").version
    (wanted,) = verdicts(root, "part", version, [png(1)])
    settings.write_text(yaml.safe_dump({"bundles": str(root), "replicas": {"device": "cpu"}}))
    variables = {"UNIAD_RAY_SERVE": str(settings)}
    serve(job_server, "build", "uniad_ray.serving.app:application", "--output-path", str(built), **variables)

    (port,) = free_ports(1)
    document = yaml.safe_load(built.read_text())
    # Both nodes run on this machine, and only one proxy can have the port.
    document |= {"proxy_location": "HeadOnly", "http_options": {"host": HEAD, "port": port}}
    (application,) = document["applications"]
    application["runtime_env"] = {"env_vars": variables}
    built.write_text(yaml.safe_dump(document))
    serve(job_server, "deploy", "--address", job_server.address, str(built))
    client = Client(port, host=HEAD)
    wait_for(lambda: answers(client), READY_SECONDS)
    assert client.score("part", png(1)).image["score"] == pytest.approx(wanted.score, abs=1e-5)
    assert "RUNNING" in serve(job_server, "status", "--address", job_server.address)

    # The same without a file: arguments in the configuration, or on the command line.
    application |= {"import_path": "uniad_ray.serving.app:build_app", "args": {"bundles": str(root)}}
    application.pop("runtime_env")
    application.pop("deployments")
    built.write_text(yaml.safe_dump(document))
    serve(job_server, "deploy", "--address", job_server.address, str(built))
    time.sleep(1)
    wait_for(
        lambda: "args" in serve(job_server, "config", "--address", job_server.address) and answers(client),
        READY_SECONDS,
    )
    assert client.score("part", png(1)).image["decision"] == wanted.decision
    serve(job_server, "shutdown", "--address", job_server.address, "--yes")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_serve_run_takes_arguments(tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    write_bundle(root, "part")
    (port,) = free_ports(1)
    config = tmp_path / "serve.yaml"
    document = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                "name": "uniad_ray",
                "route_prefix": "/",
                "import_path": "uniad_ray.serving.app:build_app",
                "args": {"bundles": str(root), "replicas": {"device": "cpu"}},
            }
        ],
    }
    config.write_text(yaml.safe_dump(document))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [str(BIN / "serve"), "run", str(config)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        client = Client(port)
        wait_for(lambda: process.poll() is not None or answers(client), READY_SECONDS)
        assert client.score("part", png(0)).status == 200
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()
