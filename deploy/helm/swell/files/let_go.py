"""Has the server end while it still has the rights to end its replicas: NAMESPACE STATEFULSET SECONDS

Helm deletes Roles without waiting for Pods. A server without rights could not end what it runs, and somebody would pay
for that until it is found. Exit codes: 0 the server is gone, 1 it is not.
"""

import json
import os
import ssl
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT_FOLDER", "/var/run/secrets/kubernetes.io/serviceaccount"))
POLL_SECONDS = float(os.environ.get("POLL_SECONDS", "1"))
ASK_SECONDS = 10.0
NOT_FOUND = 404

namespace, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
host = os.environ["KUBERNETES_SERVICE_HOST"]
api = f"https://{f'[{host}]' if ':' in host else host}:{os.environ['KUBERNETES_SERVICE_PORT']}"
tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))


def is_there(path: str, patch: object = None) -> bool:
    """Ask for an object, or change it; whether there is one."""
    request = Request(api + path, method="GET" if patch is None else "PATCH")
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
    if patch is not None:
        request.data = json.dumps(patch).encode()
        request.add_header("Content-Type", "application/merge-patch+json")
    try:
        with urlopen(request, timeout=ASK_SECONDS, context=tls):
            return True
    except HTTPError as error:
        if error.code == NOT_FOUND:
            return False
        sys.exit(f"{path}: {error.code} {error.read(1000).decode(errors='replace')}")


is_there(f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}/scale", {"spec": {"replicas": 0}})
deadline = time.monotonic() + seconds
while is_there(f"/api/v1/namespaces/{namespace}/pods/{name}-0"):
    if time.monotonic() >= deadline:
        sys.exit(f"Pod {name}-0 has not ended in {seconds:g} s; see what it waits for, and uninstall again")
    time.sleep(POLL_SECONDS)
print(f"Pod {name}-0 is gone, and its replicas with it")
