"""Has several servers end, and all that they run: NAMESPACE DEPLOYMENT SECONDS ARGUMENTS…

A server that is told to end leaves its replicas to the next one. Were all of them just taken away, somebody would pay
for those replicas until they are found. So this Pod is the next one: `swell ARGUMENTS…` leads when the others are gone,
and is told to end everything. Exit codes: 0 nothing runs any more, 1 something may.
"""

import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT_FOLDER", "/var/run/secrets/kubernetes.io/serviceaccount"))
POLL_SECONDS = 1.0
ASK_SECONDS = 30.0
NOT_FOUND = 404

namespace, name, seconds, *arguments = sys.argv[1:]
deadline = time.monotonic() + float(seconds)
host = os.environ["KUBERNETES_SERVICE_HOST"]
api = f"https://{f'[{host}]' if ':' in host else host}:{os.environ['KUBERNETES_SERVICE_PORT']}"
scale = Request(f"{api}/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", method="PATCH")
scale.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
scale.add_header("Content-Type", "application/merge-patch+json")
scale.data = json.dumps({"spec": {"replicas": 0}}).encode()
try:
    urlopen(scale, timeout=ASK_SECONDS, context=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))).close()
except HTTPError as error:
    if error.code != NOT_FOUND:
        sys.exit(f"{name}: {error.code} {error.read(1000).decode(errors='replace')}")


def leads() -> bool:
    """Whether it is its turn."""
    said = subprocess.run(["swell", "status", "--json"], capture_output=True, timeout=ASK_SECONDS, check=False)
    return said.returncode == 0 and not json.loads(said.stdout).get("waiting")


server = subprocess.Popen(["swell", *arguments])
try:
    while not leads():
        if server.poll() is not None:
            sys.exit("the server that was to end everything has ended; see what it says above, and uninstall again")
        if time.monotonic() >= deadline:
            sys.exit(
                f"{name} has servers that have not ended in {seconds} s; see what they wait for, and uninstall again"
            )
        time.sleep(POLL_SECONDS)
    left = str(max(POLL_SECONDS, deadline - time.monotonic()))
    if subprocess.run(["swell", "down", "--timeout", left], check=False).returncode:
        sys.exit("not everything has ended; what is left has the label app.kubernetes.io/managed-by=swell")
finally:
    server.terminate()
    server.wait()
print("The servers are gone, and their replicas with them")
