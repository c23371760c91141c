"""Whether a server answers by its socket, be it one that leads or one that waits: SOCKET SECONDS. Exit code 0: it does.

Its own event loop answers, so that a server that hangs does not. Asked every few seconds: as few imports as can be.
"""

import socket
import sys

path, seconds = sys.argv[1], float(sys.argv[2])
ENOUGH = 12  # bytes, of HTTP/1.1 200
said = b""
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
    server.settimeout(seconds)
    try:
        server.connect(path)
        server.sendall(b"GET /api/status HTTP/1.1\r\nhost: swell\r\nconnection: close\r\n\r\n")
        while len(said) < ENOUGH and (more := server.recv(ENOUGH)):
            said += more
    except OSError as error:
        sys.exit(f"{path}: {error}")
if said.split(b" ")[1:2] != [b"200"]:
    sys.exit(f"{path}: {said!r}")
