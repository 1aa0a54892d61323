"""E-mail to a server of the test that speaks enough SMTP."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from uniad_ray.alarms.mail import Mail, compose, send
from uniad_ray.alarms.message import night_message
from uniad_ray.alarms.rules import Alarm
from uniad_ray.errors import ConfigError, DeliveryError

ALARM = Alarm(kind="drift", category="nut", text="nut: images are brighter\nthan before")
MESSAGE = night_message("0b5e", night="n1", alarms=[ALARM], facts={"images": 4}, report="/r", overview="/o")


def mail(port: int = 25, **options: Any) -> Mail:
    given = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "line@example.org",
        "recipients": ["quality@example.org", "night@example.org"],
        **options,
    }
    return Mail.model_validate(given)


@contextmanager
def smtp_server(refused: tuple[str, ...] = (), goodbye: bytes = b"221 bye") -> Iterator[tuple[int, list[bytes]]]:
    """A fake: takes every e-mail, and refuses some recipients."""
    received: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 fake\r\n")
            while line := self.rfile.readline():
                command = line.strip().upper()
                if command.startswith(b"RCPT") and any(name.encode().upper() in command for name in refused):
                    self.wfile.write(b"550 no such mailbox\r\n")
                elif command == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = iter(self.rfile.readline, b".\r\n")
                    received.append(b"".join(lines))
                    self.wfile.write(b"250 taken\r\n")
                elif command == b"QUIT":
                    self.wfile.write(goodbye + b"\r\n")
                    return
                else:
                    self.wfile.write(b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1], received
        server.shutdown()
        thread.join()


def test_mail_arrives_with_an_id_of_the_night() -> None:
    with smtp_server() as (port, received):
        send(mail(port), MESSAGE, where="notify.mail.a")
    (data,) = received
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert found["Subject"] == "Night n1: nut: images are brighter than before"
    assert found["To"] == "quality@example.org, night@example.org"
    assert found["Message-ID"] == f"<{MESSAGE.id}@example.org>" == compose(mail(), MESSAGE)["Message-ID"]
    assert "ALARM drift: nut: images are brighter" in found.get_content()


def test_one_refused_recipient_does_not_send_it_again_to_the_others(caplog: pytest.LogCaptureFixture) -> None:
    with smtp_server(("night@",)) as (port, received):
        send(mail(port), MESSAGE, where="notify.mail.a")
    assert len(received) == 1
    assert "refused night@example.org" in caplog.text


def test_mail_that_was_taken_is_not_sent_again_because_of_the_goodbye() -> None:
    with smtp_server(goodbye=b"421 too busy to say goodbye") as (port, received):
        send(mail(port), MESSAGE, where="notify.mail.a")
    assert len(received) == 1


def test_failures_are_errors() -> None:
    with (
        smtp_server(("@example.org",)) as (port, received),
        pytest.raises(DeliveryError, match="SMTPRecipientsRefused"),
    ):
        send(mail(port), MESSAGE, where="notify.mail.a")
    assert received == []
    with smtp_server() as (port, _):
        pass
    with pytest.raises(DeliveryError, match=rf"notify.mail.a: 127.0.0.1:{port} did not take the e-mail \(.*refused"):
        send(mail(port), MESSAGE, where="notify.mail.a")
    # The fake does not offer STARTTLS: the e-mail is not sent in the clear.
    with smtp_server() as (port, received), pytest.raises(DeliveryError, match="SMTPNotSupportedError"):
        send(mail(port, security="starttls"), MESSAGE, where="notify.mail.a")
    assert received == []


def test_password_comes_from_a_file(tmp_path: Path) -> None:
    login = {"username": "line", "password": {"file": str(tmp_path / "word")}}
    receiver = mail(security="tls", **login)
    with pytest.raises(ConfigError, match=r"notify.mail.a.password: .*word cannot be read \(FileNotFoundError\)"):
        send(receiver, MESSAGE, where="notify.mail.a")
    for wrong in (
        *({**login, "security": "none"}, {"username": "line"}, {"sender": "no address"}),
        *({"recipients": []}, {"recipients": ["a@b\nc"]}),
    ):
        with pytest.raises(ValidationError):
            mail(**wrong)
