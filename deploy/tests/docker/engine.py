"""As much of a container engine as shows docker-compose.test.yml without one.

Every instruction of the Dockerfile is carried out in file systems that begin as the Debian that they name, and then the
services of the compose file run in them: their commands, users, capabilities, volumes, addresses, health checks and order
as `docker-compose config` prints them. What a real engine does besides (images, layers, build contexts sent over, a
process table of each container's own, restarts) is not here.

    engine.py DEBIAN CHECKOUT PROGRAMS NORMALIZED [PATTERN WHY]…

DEBIAN       the file system of the image debian:trixie-slim; it stays as it is
PROGRAMS     the folder with programs that are built, taken if `cargo build` is not carried out
NORMALIZED   what `docker-compose config` prints
PATTERN WHY  RUN lines that begin so are not carried out, and why

It has to run in mount and process namespaces of its own, as root; docker.sh sees to that.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

WORK = Path("/mnt")
# Whom this machine trusts beside those whom Debian trusts: such as the proxy of a company.
TRUSTED = Path("usr/local/share/ca-certificates")


def fail(text):
    print(f"not so: {text}", file=sys.stderr)
    sys.exit(1)


def ok(text):
    print(f"ok: {text}", flush=True)


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        fail(f"{shlex.join(map(str, command))}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


class Stage:
    """One `FROM … AS name` and what follows."""

    def __init__(self, name, parent):
        self.name, self.parent = name, parent
        self.instructions = []
        self.user, self.command, self.healthcheck = "root", None, None

    @property
    def root(self):
        return WORK / "stages" / self.name / "root"


def read_dockerfile(path):
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n", " ", text)
    stages = {}
    stage = None
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, rest = line.split(None, 1)
        if instruction == "FROM":
            image, _, name = rest.split()
            stage = stages[name] = Stage(name, stages.get(image))
            if stage.parent is None and image != "debian:trixie-slim":
                fail(f"the image {image} is not Debian's")
        elif instruction in ("RUN", "COPY", "WORKDIR", "USER", "CMD", "HEALTHCHECK"):
            stage.instructions.append((instruction, rest))
        else:
            fail(f"{instruction} is not known to this test")
    return stages


def overlay(lower, folder):
    """A file system that is `lower` until it is changed; returns its root."""
    for name in ("changed", "work", "root"):
        (folder / name).mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={folder}/changed,workdir={folder}/work"
    run("mount", "-t", "overlay", "overlay", folder / "root", "-o", options)
    root = folder / "root"
    run("mount", "--rbind", "/proc", root / "proc")
    run("mount", "--rbind", "/dev", root / "dev")
    return root


def layers(stage, debian):
    """The folders below a stage, the uppermost first."""
    below = []
    while stage:
        below.append(str(WORK / "stages" / stage.name / "changed"))
        stage = stage.parent
    return ":".join(below + [str(debian)])


def build(stage, debian, checkout, programs, left_out):
    overlay(layers(stage.parent, debian), WORK / "stages" / stage.name)
    if stage.parent:
        stage.user, stage.command = stage.parent.user, stage.parent.command
        stage.healthcheck = stage.parent.healthcheck
    directory = "/"
    if ("/" / TRUSTED).is_dir():
        shutil.copytree("/" / TRUSTED, stage.root / TRUSTED, dirs_exist_ok=True)
    for instruction, rest in stage.instructions:
        why = [why for beginning, why in left_out if rest.startswith(beginning)]
        if instruction == "RUN" and why:
            print(f"skipped: RUN {rest[:60]}…, since {why[0]}", flush=True)
        elif instruction == "RUN":
            # As in an image, where nothing is synced.
            shutil.copy("/etc/resolv.conf", stage.root / "etc/resolv.conf")
            begin = time.monotonic()
            inside = ["chroot", stage.root, "env", "-i", "HOME=/root", f"PATH={os.defpath}:/usr/sbin:/sbin", "DEBIAN_FRONTEND=noninteractive"]
            run(*inside, "sh", "-c", f"cd {directory} && {rest}")
            ok(f"{stage.name}: RUN {rest[:60]}… ({time.monotonic() - begin:.0f} s)")
        elif instruction == "COPY":
            copy(stage, rest, checkout, programs, directory)
        elif instruction == "WORKDIR":
            directory = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif instruction == "USER":
            stage.user = rest
        elif instruction == "CMD":
            stage.command = json.loads(rest)
        elif instruction == "HEALTHCHECK":
            stage.healthcheck = json.loads(rest.split("CMD", 1)[1])


def copy(stage, rest, checkout, programs, directory):
    words = rest.split()
    built = words[0].startswith("--from=")
    *sources, target = words[1:] if built else words
    into = stage.root / os.path.join(directory, target).lstrip("/")
    if target.endswith("/") or len(sources) > 1:
        into.mkdir(parents=True, exist_ok=True)
    into.parent.mkdir(parents=True, exist_ok=True)
    for source in sources:
        path = programs / Path(source).name if built else checkout / source
        if not path.exists():
            fail(f"COPY {source}: there is no {path}")
        if path.is_dir():
            shutil.copytree(path, into, dirs_exist_ok=True)
        else:
            shutil.copy(path, into)


class Service:
    """One service of the compose file, in its own copy of its image."""

    def __init__(self, name, about, stage, lower, hosts):
        self.name, self.about, self.stage = name, about, stage
        self.root = overlay(lower, WORK / "services" / name)
        mode = about.get("network_mode", "")
        if mode.startswith("service:"):
            self.network = mode.removeprefix("service:")
        else:
            self.network = name
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for network in about.get("networks") or {}:
            address = about["networks"][network]["ipv4_address"]
            port = f"port-{name}"
            run("ip", "-n", "switch", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "-n", "switch", "link", "set", port, "master", "switch", "up")
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            hosts.append(f"{address} {name}")
        for volume in about.get("volumes", []):
            self.mount(volume)

    def mount(self, volume):
        source, target, *options = volume.split(":")
        inside, outside = self.root / target.lstrip("/"), WORK / "volumes" / source
        inside.mkdir(parents=True, exist_ok=True)
        if not outside.exists():
            # A fresh volume begins as what the image has in its place.
            outside.parent.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", inside, outside)
        run("mount", "--bind", outside, inside)
        if "ro" in options:
            run("mount", "-o", "remount,bind,ro", inside)

    def inside(self, command):
        """`command` as the service runs it."""
        kept = [f"+{name.lower()}" for name in self.about.get("cap_add", [])]
        if "ALL" not in self.about.get("cap_drop", []):
            fail(f"{self.name} keeps capabilities that it does not need")
        hostname = self.about.get("hostname", self.name)
        become = ["setpriv", "--bounding-set", ",".join(["-all"] + kept), "--reuid", self.stage.user, "--regid", self.stage.user]
        words = become + ["--clear-groups", "--inh-caps", "-all", "env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        script = f"hostname {hostname}; exec chroot {self.root} {shlex.join(words + command)}"
        return ["ip", "netns", "exec", self.network, "unshare", "--uts", "sh", "-c", script]

    def start(self):
        command = self.about.get("command") or self.stage.command
        self.log = (WORK / f"{self.name}.log").open("w")
        self.process = subprocess.Popen(self.inside(command), stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def said(self):
        return Path(self.log.name).read_text()[-3000:]

    def wait_healthy(self):
        test = self.about.get("healthcheck", {}).get("test")
        test = test[1:] if test else self.stage.healthcheck
        deadline = time.monotonic() + 60
        while subprocess.run(self.inside(test), capture_output=True, stdin=subprocess.DEVNULL).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                fail(f"{self.name} does not become healthy: {self.said()}")
            time.sleep(0.2)
        ok(f"{self.name} is healthy")

    def wait_done(self):
        if self.process.wait(timeout=300) != 0:
            fail(f"{self.name} ends with {self.process.returncode}: {self.said()}")
        ok(f"{self.name} has done its work")


def in_order(services):
    """Names, each after those that it depends on."""
    done = []
    while len(done) < len(services):
        ready = [name for name, about in services.items() if name not in done and set(about.get("depends_on", {})) <= set(done)]
        if not ready:
            fail("services wait for each other in a circle")
        done += ready
    return done


def main():
    debian, checkout, programs, normalized = map(Path, sys.argv[1:5])
    left_out = list(zip(sys.argv[5::2], sys.argv[6::2], strict=True))
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", WORK)
    stages = read_dockerfile(checkout / "deploy/docker/Dockerfile")
    for stage in stages.values():
        build(stage, debian, checkout, programs, left_out)
        release = stage.root / "src/target/release"
        if release.exists():
            programs = release
    # The workspace is whole where only what is copied is there.
    run("cargo", "metadata", "--offline", "--locked", "--format-version", "1", cwd=stages["build"].root / "src")
    ok("what the build stage copies is a whole workspace")

    services = yaml.safe_load(normalized.read_text())["services"]
    # From here on there is no way out: the network of the machine is left outside.
    Path("/run/netns").mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    run("ip", "netns", "add", "switch")
    run("ip", "-n", "switch", "link", "add", "switch", "type", "bridge")
    run("ip", "-n", "switch", "link", "set", "switch", "up")
    hosts = ["127.0.0.1 localhost"]
    running = {}
    for name in in_order(services):
        about = services[name]
        stage = stages[about["build"]["target"]]
        running[name] = Service(name, about, stage, layers(stage, debian), hosts)
    for service in running.values():
        (service.root / "etc/hosts").write_text("\n".join(hosts) + "\n")
    for name, service in running.items():
        for other, how in service.about.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                running[other].wait_healthy()
            else:
                running[other].wait_done()
        service.start()
    test = running["test"]
    test.wait_done()
    print(test.said(), end="")
    breaking = subprocess.run(
        test.inside([*services["test"]["command"][:-1], "failure"]), capture_output=True, text=True
    )
    if "it breaks brokers" not in breaking.stderr:
        fail(f"a scenario that breaks brokers does not say that it cannot: {breaking.stdout}{breaking.stderr}")
    ok("a scenario that breaks brokers says that it cannot be told here")

    found = subprocess.run(
        running["mesh-logs"].inside(["meshctl", "logs", "--config", "/etc/mesh/mesh.toml", "-n", "1", "broker:broker3"]),
        capture_output=True,
        text=True,
    )
    if "broker3" not in found.stdout:
        fail(f"mesh-logs has no lines of broker3: {found.stdout}{found.stderr}{running['mesh-logs'].said()}")
    ok("mesh-logs has read the brokers' log files from their volume")
    status = subprocess.run(
        running["mesh-health"].inside(["meshctl", "status", "--config", "/etc/mesh/mesh.toml", "--json"]),
        capture_output=True,
        text=True,
    )
    if not json.loads(status.stdout or "{}").get("balancer", {}).get("can_move_sessions"):
        fail(f"mesh-health cannot close Nginx's connections: {status.stdout}{status.stderr}")
    ok("mesh-health may close Nginx's connections to a broker that no longer serves")
    dead = [name for name, service in running.items() if name not in ("config", "test") and service.process.poll() is not None]
    if dead:
        fail(f"{dead} ended by themselves: {running[dead[0]].said()}")
    ok("every service still runs")


main()
