"""The `uniad-ray` program of a page's shell: sends the command to the running `verb_server`.

Imports only fast modules.
"""

import json
import os
import socket
import sys
from pathlib import Path

with socket.socket(socket.AF_UNIX) as asking:
    asking.connect(os.environ["VERB_SERVER"])
    socket.send_fds(asking, [b"x"], [0, 1, 2])
    asked = {"arguments": sys.argv[1:], "folder": str(Path.cwd()), "environment": dict(os.environ)}
    asking.sendall(json.dumps(asked).encode())
    asking.shutdown(socket.SHUT_WR)
    answer = json.load(asking.makefile())
if "join" in answer:
    program = str(Path(sys.executable).with_name("uniad-ray"))
    os.execve(program, [program, *sys.argv[1:]], {**os.environ, **answer["join"]})  # noqa: S606 - replaces this process
sys.exit(answer["code"])
