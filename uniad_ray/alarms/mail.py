"""Messages by e-mail over SMTP."""

from __future__ import annotations

import contextlib
import logging
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from uniad_ray.alarms.message import Message
from uniad_ray.alarms.secrets import Secret
from uniad_ray.alarms.webhook import When
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import DeliveryError

_ADDRESS: Final = r"^[^@\s<>,]+@[^@\s<>,]+$"

_logger = logging.getLogger(__name__)


class Mail(StrictModel):
    """Recipients of an e-mail, and the server that sends it.

    Attributes:
        host: Name of the SMTP server.
        port: Its port.
        security: `starttls` encrypts after the greeting, `tls` from the start, `none` never.
        username: Name to log in with; null sends without a login.
        password: Place of the password.
        sender: Address of the sender.
        recipients: Addresses of the recipients.
        when: `alarm` sends nights with alarms; `always` sends every night.
        timeout_seconds: Longest wait for the server.
    """

    host: str
    port: int = Field(default=587, ge=1, le=65_535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: Secret | None = None
    sender: str = Field(pattern=_ADDRESS)
    recipients: tuple[Annotated[str, Field(pattern=_ADDRESS)], ...] = Field(min_length=1)
    when: When = "alarm"
    timeout_seconds: float = Field(default=30.0, gt=0, le=300)

    @model_validator(mode="after")
    def _login_is_whole_and_encrypted(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("give username and password together, or neither")
        if self.username is not None and self.security == "none":
            raise ValueError("a login needs security starttls or tls; otherwise the password is sent in the clear")
        return self


def compose(mail: Mail, message: Message) -> EmailMessage:
    """The e-mail of a message; its Message-ID follows from the id of the message."""
    composed = EmailMessage()
    composed["Subject"] = message.subject
    composed["From"] = mail.sender
    composed["To"] = ", ".join(mail.recipients)
    composed["Message-ID"] = f"<{message.id}@{mail.sender.rpartition('@')[2]}>"
    composed["Auto-Submitted"] = "auto-generated"
    composed.set_content(message.text)
    return composed


def send(mail: Mail, message: Message, *, where: str) -> None:
    """Sends a message.

    Args:
        mail: Recipients and server.
        message: The message.
        where: Key of the recipients in the configuration, for messages.

    Raises:
        ConfigError: The password cannot be read.
        DeliveryError: The server cannot be reached, or refused the e-mail for all recipients.
    """
    composed = compose(mail, message)
    composed["Date"] = formatdate()
    password = mail.password.read(f"{where}.password") if mail.password else None
    try:
        server = _connected(mail)
        try:
            if mail.username is not None and password is not None:
                server.login(mail.username, password)
            refused = server.send_message(composed)
            # The server has the e-mail: a wrong answer to QUIT must not send it again.
            with contextlib.suppress(OSError):
                server.quit()
        finally:
            server.close()
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"{where}: {mail.host}:{mail.port} did not take the e-mail ({_reason(error)})") from None
    if refused:
        # The others have it: sending again would send it to them twice.
        _logger.warning("%s: %s:%s refused %s", where, mail.host, mail.port, ", ".join(sorted(refused)))


def _connected(mail: Mail) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=mail.timeout_seconds, context=context)
    server = smtplib.SMTP(mail.host, mail.port, timeout=mail.timeout_seconds)
    if mail.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return f"status {error.smtp_code}"
    if isinstance(error, smtplib.SMTPException | UnicodeError):
        # Their texts may hold what was sent, such as a character of the password.
        return type(error).__name__
    return " ".join(str(error).split())
