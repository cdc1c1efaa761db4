"""Pools that grow, and the same servers with a fixed size: how each is set up for a burst."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import peers

LEAST, MOST = 2, 32
DEBIAN = ["apache2", "libapache2-mod-wsgi-py3", "php-fpm", "nginx-light"]


@dataclass(frozen=True)
class Pool:
    """How a server is started with a pool that grows, or with one of a fixed size."""

    name: str
    fixed: peers.Command
    dynamic: dict[str, peers.Command]
    """By what sets one apart from another."""


def install() -> None:
    """Install what is missing, as root; no service is started."""
    peers.install()
    paths = os.environ.get("PATH", "") + ":/usr/sbin"
    if shutil.which("apache2", path=paths) and shutil.which("nginx", path=paths) and _php_fpm():
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "-q", "install", "-y", "--no-install-recommends", *DEBIAN]
    subprocess.run(command, check=True, env=environment, stdout=2)


def _php_fpm() -> str:
    return max(glob.glob("/usr/sbin/php-fpm[0-9]*"), default="")


def _readable(folder: Path, source: str) -> Path:
    # Workers of Apache and php-fpm run as another user.
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    return Path(shutil.copy(peers.APPS / source, folder))


def _preforkd(size: str) -> peers.Command:
    def command(port: int, workers: int, target: str, folder: Path) -> list[str]:
        (folder / "preforkd.yaml").write_text(
            f"app: {{target: 'wsgi:{target}', directory: {peers.APPS}}}\nlisten: 127.0.0.1:{port}\n"
            f"workers: {size.format(least=LEAST, most=workers)}\ncontrol: {{socket: off}}\n"
        )
        # Of this tree, wherever the benchmarks' environment was made.
        path = f"PYTHONPATH={peers.TREE}:{peers.APPS}"
        program = [peers.PYTHON, "-m", "preforkd", "run", "--config", str(folder / "preforkd.yaml")]
        return ["env", path, *program]

    return command


def _uwsgi(*options: str) -> peers.Command:
    return lambda port, workers, target, _: [
        str(peers.BIN / "uwsgi"), "--master", "--processes", str(workers), "--module", target,
        "--disable-logging", "--listen", "1024", "--need-app", "--die-on-term", *options,
        "--http11-socket", f"127.0.0.1:{port}",
    ]  # fmt: skip


def _apache(start: str, spare: str) -> peers.Command:
    def command(port: int, workers: int, _: str, folder: Path) -> list[str]:
        script = _readable(folder, "naps.py")
        modules = "/usr/lib/apache2/modules"
        sizes = {"least": LEAST, "most": workers}
        (folder / "apache.conf").write_text(
            f"ServerRoot {folder}\nServerName localhost\nListen 127.0.0.1:{port}\nListenBacklog 1024\n"
            f"PidFile {folder}/pid\nErrorLog {folder}/error\nUser www-data\nGroup www-data\n"
            f"LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so\n"
            f"LoadModule authz_core_module {modules}/mod_authz_core.so\n"
            f"LoadModule wsgi_module {modules}/mod_wsgi.so\n"
            f"ServerLimit {workers}\nMaxRequestWorkers {workers}\n{start.format(**sizes)}\n"
            f"{spare.format(**sizes)}\nKeepAlive Off\nWSGICallableObject wsgi\n"
            f"WSGIScriptAlias / {script} process-group=%{{GLOBAL}} application-group=%{{GLOBAL}}\n"
            f"<Directory {folder}>\nRequire all granted\n</Directory>\n"
        )
        # In a process group of its own: at its end it signals all of the group.
        program = ["setsid", "/usr/sbin/apache2", "-D", "FOREGROUND"]
        return [*program, "-f", str(folder / "apache.conf")]

    return command


def _fpm(manager: str) -> peers.Command:
    def command(port: int, workers: int, _: str, folder: Path) -> list[str]:
        script = _readable(folder, "naps.php")
        (folder / "fpm.conf").write_text(
            f"[global]\nerror_log = {folder}/fpm-error\ndaemonize = no\n[www]\nuser = www-data\n"
            f"group = www-data\nlisten = {folder}/fpm\nlisten.mode = 0666\nlisten.backlog = 1024\n"
            f"pm.max_children = {workers}\n{manager.format(least=LEAST, most=workers)}\n"
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;\n"
            "events { worker_connections 2000; }\nhttp { access_log off;\n"
            f"server {{ listen 127.0.0.1:{port} backlog=1024; location / {{\n"
            f"fastcgi_pass unix:{folder}/fpm; fastcgi_param SCRIPT_FILENAME {script};\n"
            "fastcgi_param REQUEST_METHOD $request_method; fastcgi_param REQUEST_URI $request_uri;\n"
            "} } }\n"
        )
        fpm = f"{_php_fpm()} -F -y {folder}/fpm.conf & exec /usr/sbin/nginx -c {folder}/nginx.conf -e {folder}/error"
        return ["sh", "-c", fpm]

    return command


POOLS = [
    Pool("preforkd", _preforkd("{most}"), {"elastic": _preforkd("{{min: {least}, max: {most}, spare: 2}}")}),
    Pool("uWSGI", _uwsgi(), {
        "cheaper": _uwsgi("--cheaper", str(LEAST)),
        "cheaper, backlog, step 8": _uwsgi("--cheaper", str(LEAST), "--cheaper-algo", "backlog", "--cheaper-step", "8"),
    }),
    Pool("Apache", _apache("StartServers {most}", "MinSpareServers {most}\nMaxSpareServers {most}"), {
        "dynamic": _apache("StartServers {least}", "MinSpareServers 2\nMaxSpareServers 4"),
    }),
    Pool("php-fpm", _fpm("pm = static"), {
        "dynamic": _fpm("pm = dynamic\npm.start_servers = {least}\npm.min_spare_servers = {least}\npm.max_spare_servers = 4"),
        "ondemand": _fpm("pm = ondemand"),
    }),
]  # fmt: skip
"""Those that keep two idle ones do so by their own means: preforkd's spare, Apache's and php-fpm's spare servers."""
