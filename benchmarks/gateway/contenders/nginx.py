"""nginx as a plain proxy: no keys, no limits, no usage; the least that a proxy can cost."""

import shutil
from pathlib import Path

from benchmarks.gateway.contenders.base import Contender
from benchmarks.gateway.processes import CONTENDER_CORE, BenchmarkError, launch, wait_http

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx-{port}.pid;
error_log {log} error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    client_body_buffer_size 64k;
    client_max_body_size 16m;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    upstream backend {{
        server 127.0.0.1:{upstream_port};
        keepalive 512;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen 127.0.0.1:{port}{tls} backlog=4096;
        {certificate}
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""
_CERTIFICATE = """ssl_certificate {certificate};
        ssl_certificate_key {private_key};
        ssl_protocols TLSv1.3;"""


class Nginx(Contender):
    """One worker, kept-alive connections on both sides, nothing buffered, no access log."""

    needs = "nginx on the path (Debian and Ubuntu: apt-get install nginx-light)"

    def start(self) -> None:
        program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
        if program is None:
            raise BenchmarkError(f"needs {self.needs}")
        setup = self.setup
        path = Path(setup.folder, f"nginx-{self.port}.conf")
        certificate = _CERTIFICATE.format(certificate=setup.certificate, private_key=setup.private_key)
        path.write_text(
            _CONFIGURATION.format(
                folder=setup.folder,
                port=self.port,
                log=self.log,
                upstream_port=setup.upstream_port,
                tls=" ssl" if self.tls else "",
                certificate=certificate if self.tls else "",
            )
        )
        self.process = launch([program, "-c", path, "-p", setup.folder], core=CONTENDER_CORE, log=self.log)
        wait_http(f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/health", self.process, self.log)


class NginxTls(Nginx):
    """The same behind TLS 1.3."""

    tls = True
