"""What people do with docker-py, on the daemon that DOCKER_HOST names: docker_py.py PART REGISTRY

Each part makes what it needs and removes it again. The daemon has the images busybox and redis; REGISTRY is a
registry on the daemon's loopback.
"""

import io
import json
import sys
import tarfile
import threading
import time

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import Healthcheck, LogConfig, Mount, Ulimit

SOON = 20
FOREVER = ["sleep", "1000"]

client = docker.from_env()


def wait_until(what, condition):
    """Looks until `condition()` is true."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not so after {SOON} s"
        time.sleep(0.02)


def raises(kind, status, words, call, *args, **kwargs):
    """Calls what must be refused with `status` and `words`."""
    try:
        call(*args, **kwargs)
    except kind as error:
        assert error.response.status_code == status, error
        assert words in error.explanation, error
        return
    raise AssertionError(f"{call} was not refused")


def archive(**files):
    """A tar archive of small files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def system(_registry):
    assert client.ping() is True
    version = client.version()
    assert version["ApiVersion"] == client.api.api_version == "1.49", version
    assert client.version(api_version=False)["Os"] == "linux"
    info = client.info()
    assert info["OSType"] == "linux" and info["Images"] == 2, info
    assert info["Swarm"]["LocalNodeState"] == "active"
    [node] = client.nodes.list()
    assert node.attrs["Status"]["State"] == "ready" and client.services.list() == []
    usage = client.df()
    assert {image["Id"] for image in usage["Images"]} == {image.id for image in client.images.list()}
    assert usage["LayersSize"] > 0 and usage["Containers"] is not None and usage["Volumes"] is not None
    context = archive(Dockerfile=b"FROM busybox", big=bytes(8 << 20))
    build = {"fileobj": io.BytesIO(context), "custom_context": True}
    raises(APIError, 501, "buildah", lambda: list(client.api.build(**build)))
    for version in ["1.24", "1.41", "1.44"]:
        older = docker.from_env(version=version)
        assert older.ping() and len(older.images.list()) == 2
        older.close()


def images(registry):
    busybox = client.images.get("busybox")
    assert busybox.tags == ["busybox:latest"] and busybox.id.startswith("sha256:")
    assert busybox.short_id == busybox.id[:19]
    assert busybox.attrs["Os"] == "linux" and busybox.attrs["Size"] > 0
    assert busybox.attrs["RootFS"]["Type"] == "layers"
    assert len(busybox.history()) == 1 and busybox.labels == {}
    assert {tag for image in client.images.list() for tag in image.tags} == {"busybox:latest", "redis:latest"}
    assert [image.id for image in client.images.list(name="busybox")] == [busybox.id]
    assert client.images.list(filters={"dangling": True}) == []
    raises(ImageNotFound, 404, "No such image", client.images.get, "nosuch")

    assert busybox.tag("mine", tag="1") and busybox.tag("mine", "2")
    busybox.reload()
    assert sorted(busybox.tags) == ["busybox:latest", "mine:1", "mine:2"]
    client.images.remove("mine:1")
    raises(ImageNotFound, 404, "No such image", client.images.get, "mine:1")

    saved = b"".join(busybox.save(named="mine:2"))
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
    assert manifest[0]["RepoTags"] == ["mine:2"], manifest
    client.images.remove("mine:2")
    [loaded] = client.images.load(saved)
    assert loaded.id == busybox.id and "mine:2" in loaded.tags
    client.images.remove("mine:2")

    repository = f"{registry}/team/busybox"
    assert busybox.tag(repository, "7")
    lines = list(client.images.push(repository, "7", stream=True, decode=True))
    digest = next(line["aux"]["Digest"] for line in lines if "aux" in line)
    client.images.remove(f"{repository}:7")
    assert client.images.pull(repository, tag="7").id == busybox.id
    assert client.images.pull(f"{repository}@{digest}").id == busybox.id
    progress = list(client.api.pull(repository, tag="7", stream=True, decode=True))
    assert progress[-1]["status"] == f"Status: Image is up to date for {repository}:7", progress
    [pulled] = client.images.pull(repository, all_tags=True)
    assert f"{repository}:7" in pulled.tags
    data = client.images.get_registry_data(f"{repository}:7")
    assert data.id == digest and data.has_platform("linux/amd64") == (
        busybox.attrs["Architecture"] == "amd64"
    )
    assert data.pull().id == busybox.id
    raises(NotFound, 404, "manifest unknown", client.images.get_registry_data, f"{registry}/team/nosuch")
    raises(NotFound, 404, "", client.images.pull, f"{registry}/team/nosuch", tag="1")
    client.images.remove(f"{repository}:7")
    for name in client.images.get("busybox").attrs["RepoDigests"]:
        client.images.remove(name)
    assert client.images.get("busybox").attrs["RepoDigests"] == []

    imported = json.loads(
        client.api.import_image_from_data(
            archive(greeting=b"hello"), repository="made", tag="1"
        ).splitlines()[-1]
    )
    assert client.images.get("made:1").id == imported["status"]
    client.images.remove("made:1", force=True)
    assert client.images.prune(filters={"dangling": True})["SpaceReclaimed"] >= 0


def run(_registry):
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    assert (
        client.containers.run(
            "busybox",
            "sh -c 'echo $COLOUR; pwd; id -u'",
            environment={"COLOUR": "green"},
            working_dir="/tmp",
            user="7",
            remove=True,
        )
        == b"green\n/tmp\n7\n"
    )
    both = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], stderr=True, remove=True)
    assert sorted(both.splitlines()) == [b"err", b"out"]
    lines = client.containers.run("busybox", ["sh", "-c", "echo one; echo two"], stream=True, remove=True)
    assert b"".join(lines) == b"one\ntwo\n"
    try:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
        raise AssertionError("it did not fail")
    except ContainerError as error:
        assert error.exit_status == 3 and error.stderr == b"why\n", error
    raises(ImageNotFound, 404, "No such image", client.containers.create, "nosuch:1", "true")
    raises(
        APIError, 400, "executable file not found", client.containers.run, "busybox", "nosuch", name="never"
    )
    client.containers.get("never").remove()
    assert client.containers.list(all=True) == []


def life(_registry):
    web = client.containers.create(
        "busybox",
        ["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"],
        name="web",
        labels={"tier": "front"},
        hostname="web-1",
        ports={"80/tcp": ("127.0.0.1", None)},
        mem_limit="64m",
        cap_drop=["NET_RAW"],
        ulimits=[Ulimit(name="nofile", soft=64, hard=64)],
        extra_hosts={"other": "10.0.0.1"},
        dns=["10.0.0.2"],
        tmpfs={"/scratch": "size=1m"},
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 0},
        init=False,
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m"}),
    )
    assert web.status == "created" and web.name == "web" and web.labels == {"tier": "front"}
    assert web.image == client.images.get("busybox")
    raises(APIError, 409, "already in use", client.containers.create, "busybox", name="web")
    web.start()
    web.reload()
    assert web.status == "running" and web.attrs["Config"]["Hostname"] == "web-1"
    assert web.ports["80/tcp"][0]["HostIp"] == "127.0.0.1", web.ports
    assert [
        found.id for found in client.containers.list(filters={"label": "tier=front", "status": "running"})
    ] == [web.id]
    assert client.containers.list(filters={"name": "nosuch"}) == []
    assert [found.id for found in client.containers.list(filters={"name": "^/?we[a-c]$"})] == [web.id]
    assert client.containers.list(sparse=True)[0].id == web.id
    wait_until("it says up", lambda: web.logs() == b"up\n")
    assert web.logs(stdout=True, stderr=False, timestamps=True, tail=1).split(b" ")[1] == b"up\n"
    assert web.logs(since=int(time.time()) + 1000) == b""

    assert web.exec_run("cat /etc/hostname") == (0, b"web-1\n")
    assert web.exec_run(["sh", "-c", "exit 9"]).exit_code == 9
    code, output = web.exec_run(
        "sh -c 'echo $A; pwd; echo err >&2'", environment=["A=b"], workdir="/tmp", demux=True
    )
    assert (code, output) == (0, (b"b\n/tmp\n", b"err\n")), output
    assert b"".join(web.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True).output) == b"1\n2\n"
    assert web.exec_run("tty", tty=True).output == b"/dev/pts/0\r\n"
    assert web.exec_run("true", detach=True).output == ""
    raises(APIError, 409, "is not running", client.containers.create("busybox", name="idle").exec_run, "true")
    client.containers.get("idle").remove()

    assert "PID" in web.top()["Titles"] and len(web.top()["Processes"]) >= 1
    assert "COMMAND" in web.top(ps_args="-o pid,comm")["Titles"]
    stats = web.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 << 20 and "eth0" in stats["networks"], stats
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and stats["pids_stats"]["current"] >= 1
    reading = web.stats(decode=True)
    assert next(reading)["name"] == "/web" and "precpu_stats" in next(reading)
    reading.close()

    web.update(mem_limit="32m", memswap_limit="64m")
    web.reload()
    assert web.attrs["HostConfig"]["Memory"] == 32 << 20
    web.pause()
    web.reload()
    assert web.status == "paused"
    web.unpause()
    web.rename("site")
    assert client.containers.get("site").id == web.id
    web.restart(timeout=5)
    web.stop(timeout=5)
    assert web.wait() == {"StatusCode": 5}
    web.start()
    raises(APIError, 409, "running", web.remove)
    web.kill()
    assert web.wait(timeout=20, condition="not-running")["StatusCode"] == 137
    web.start()
    web.kill(signal="SIGTERM")
    assert web.wait()["StatusCode"] == 5
    web.remove(v=True)
    raises(NotFound, 404, "No such container: web", client.containers.get, "web")
    pruned = client.containers.create("busybox")
    assert client.containers.prune(filters={"label": "nosuch"})["ContainersDeleted"] in (None, [])
    assert client.containers.prune()["ContainersDeleted"] == [pruned.id]


def streams(_registry):
    echo = client.containers.create("busybox", "cat", stdin_open=True, name="echo")
    socket = echo.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    echo.start()
    socket._sock.sendall(b"hello\n")
    assert socket.read(14) == b"\x01\0\0\0\0\0\0\x06hello\n"
    following = echo.logs(stream=True, follow=True)
    assert next(following) == b"hello\n"
    # Not with its logs: what comes right behind the headers, docker-py loses now and then.
    attached = echo.attach(stream=True)
    socket._sock.sendall(b"again\n")
    assert next(attached) == next(following) == b"again\n"
    socket._sock.shutdown(1)
    assert echo.wait()["StatusCode"] == 0
    socket.close()
    assert list(following) == [] and list(attached) == []
    assert echo.logs(tail=1) == b"again\n"
    echo.remove()

    terminal = client.containers.run("busybox", "sh", tty=True, stdin_open=True, detach=True, name="terminal")
    terminal.resize(height=30, width=100)
    socket = terminal.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    socket._sock.sendall(b"stty size\n")
    seen = b""
    while b"30 100" not in seen:
        seen += socket._sock.recv(4096)
    socket.close()
    terminal.remove(force=True)

    box = client.containers.run("busybox", FOREVER, detach=True, name="box", init=True)
    exec_id = client.api.exec_create(box.id, "sh", stdin=True, tty=True)["Id"]
    socket = client.api.exec_start(exec_id, socket=True, tty=True)
    client.api.exec_resize(exec_id, height=20, width=90)
    socket._sock.sendall(b"stty size; exit 4\n")
    seen = b""
    while piece := socket._sock.recv(4096):
        seen += piece
    assert b"20 90" in seen, seen
    shown = client.api.exec_inspect(exec_id)
    assert shown["ExitCode"] == 4 and shown["Running"] is False and shown["ContainerID"] == box.id, shown
    box.remove(force=True)


def files(_registry):
    box = client.containers.run("busybox", FOREVER, detach=True, init=True, name="box")
    assert box.put_archive("/tmp", archive(greeting=b"hello", other=b"x"))
    assert box.exec_run("cat /tmp/greeting").output == b"hello"
    chunks, stat = box.get_archive("/tmp/greeting")
    assert stat["name"] == "greeting" and stat["size"] == 5, stat
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("greeting").read() == b"hello"
    raises(NotFound, 404, "Could not find the file", box.get_archive, "/nosuch")
    raises(NotFound, 404, "Could not find the file", box.put_archive, "/nosuch", archive(a=b""))
    assert {"Path": "/tmp/greeting", "Kind": 1} in box.diff(), box.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as tar:
        assert tar.extractfile("tmp/greeting").read() == b"hello"
    image = box.commit(
        "mine", tag="1", message="a greeting", author="me", changes=["ENV A=b", "CMD cat /tmp/greeting"]
    )
    assert (
        image.tags == ["mine:1"] and image.attrs["Author"] == "me" and image.attrs["Comment"] == "a greeting"
    )
    assert client.containers.run("mine:1", remove=True) == b"hello"
    box.remove(force=True)
    client.images.remove("mine:1")


def volumes(_registry):
    data = client.volumes.create("data", labels={"keep": "yes"})
    assert data.name == "data" and data.attrs["Driver"] == "local" and data.attrs["Labels"] == {"keep": "yes"}
    assert client.volumes.create("data").attrs["CreatedAt"] == data.attrs["CreatedAt"]
    assert [volume.name for volume in client.volumes.list(filters={"label": "keep"})] == ["data"]
    assert client.volumes.get("data").id == "data"
    raises(NotFound, 404, "no such volume", client.volumes.get, "nosuch")
    client.containers.run(
        "busybox",
        ["sh", "-c", "echo kept >/data/x"],
        volumes={"data": {"bind": "/data", "mode": "rw"}},
        remove=True,
    )
    mount = Mount(target="/data", source="data", type="volume", read_only=True)
    user = client.containers.run("busybox", ["cat", "/data/x"], mounts=[mount], detach=True)
    assert user.wait()["StatusCode"] == 0 and user.logs() == b"kept\n"
    assert user.attrs["Mounts"][0]["Name"] == "data" and user.attrs["Mounts"][0]["RW"] is False
    raises(APIError, 409, "in use", data.remove)
    heir = client.containers.run("busybox", ["cat", "/data/x"], volumes_from=[user.id], remove=True)
    assert heir == b"kept\n"
    user.remove(v=True)
    data.remove()
    unnamed = client.volumes.create()
    assert unnamed.name in client.volumes.prune()["VolumesDeleted"]


def networks(_registry):
    pool = docker.types.IPAMPool(subnet="10.99.7.0/24")
    front = client.networks.create(
        "front", driver="bridge", labels={"a": "b"}, ipam=docker.types.IPAMConfig(pool_configs=[pool])
    )
    back = client.networks.create("back", internal=True, attachable=True, check_duplicate=True)
    assert front.attrs["IPAM"]["Config"][0]["Subnet"] == "10.99.7.0/24" and front.name == "front"
    assert back.attrs["Internal"] is True
    assert {network.name for network in client.networks.list()} == {"bridge", "host", "none", "front", "back"}
    assert (
        client.networks.list(names=["front"])[0].id == client.networks.list(ids=[front.id])[0].id == front.id
    )
    assert client.networks.list(filters={"label": "a=b", "driver": "bridge"}, greedy=True)[0].containers == []
    raises(NotFound, 404, "network nosuch not found", client.networks.get, "nosuch")
    raises(APIError, 409, "already exists", client.networks.create, "front")

    config = {"front": client.api.create_endpoint_config(aliases=["db"], ipv4_address="10.99.7.9")}
    server = client.containers.run(
        "busybox",
        ["sh", "-c", "while :; do echo hi | nc -l -p 80; done"],
        detach=True,
        name="server",
        network="front",
        networking_config=config,
        init=True,
    )
    server.reload()
    assert server.attrs["NetworkSettings"]["Networks"]["front"]["IPAddress"] == "10.99.7.9"
    other = client.containers.run("busybox", FOREVER, detach=True, name="other", network="back", init=True)
    assert other.exec_run("nslookup db").exit_code != 0
    front.connect(other, aliases=["watcher"])
    wait_until("it answers by its alias", lambda: other.exec_run("nc -w 1 db 80").output == b"hi\n")
    assert server.exec_run("nslookup watcher").exit_code == 0
    front.reload()
    assert {container.name for container in front.containers} == {"server", "other"}
    raises(APIError, 403, "already exists in network", front.connect, other)
    front.disconnect(other)
    front.disconnect("server", force=True)
    front.reload()
    assert front.containers == []
    raises(APIError, 403, "not connected", front.disconnect, other)
    raises(APIError, 403, "has active endpoints", back.remove)
    for container in [server, other]:
        container.remove(force=True)
    front.remove()
    assert client.networks.prune()["NetworksDeleted"] == ["back"]


def events(_registry):
    since = time.time()
    heard = []
    stream = client.events(decode=True, filters={"label": "heard=yes"})
    listener = threading.Thread(target=lambda: heard.extend(stream))
    listener.start()
    box = client.containers.run("busybox", "true", detach=True, name="box", labels={"heard": "yes"})
    box.wait()
    box.remove()
    wait_until("its end is heard of", lambda: any(event["Action"] == "destroy" for event in heard))
    stream.close()
    listener.join()
    actions = [event["Action"] for event in heard if event["Type"] == "container"]
    assert actions == ["create", "start", "die", "destroy"], actions
    assert heard[0]["Actor"]["Attributes"]["name"] == "box" and heard[0]["status"] == "create"
    client.volumes.create("v1").remove()
    network = client.networks.create("n1")
    network.remove()
    past = list(client.events(since=since, until=time.time(), decode=True))
    seen = {(event["Type"], event["Action"]) for event in past}
    expected = {
        ("network", "connect"),
        ("network", "disconnect"),
        ("network", "create"),
        ("network", "destroy"),
        ("volume", "create"),
        ("volume", "destroy"),
        ("container", "die"),
    }
    assert expected <= seen, seen
    named = list(
        client.events(since=since, until=time.time(), decode=True, filters={"type": "volume", "volume": "v1"})
    )
    assert [event["Action"] for event in named] == ["create", "destroy"], named


def health(_registry):
    check = Healthcheck(test=["CMD-SHELL", "test -e /well"], interval=50_000_000, retries=1)
    box = client.containers.run("busybox", FOREVER, detach=True, name="box", init=True, healthcheck=check)
    assert box.health in ("starting", "unhealthy", "unknown")

    def is_well():
        box.reload()
        return box.health == "healthy"

    box.exec_run("touch /well")
    wait_until("it is well", is_well)
    assert [found.id for found in client.containers.list(filters={"health": "healthy"})] == [box.id]
    box.remove(force=True)


PARTS = {
    part.__name__: part
    for part in [system, images, run, life, streams, files, volumes, networks, events, health]
}

if __name__ == "__main__":
    PARTS[sys.argv[1]](sys.argv[2])
    left = [container.name for container in client.containers.list(all=True)]
    assert left == [], left
    left = [volume.name for volume in client.volumes.list()]
    assert left == [], left
