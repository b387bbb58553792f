"""The main verbs through Docker's Python SDK; DOCKER_HOST says where the daemon is, which holds box:1 and no container.

With the argument "cgroups": what takes cgroup v2, which a daemon on a workstation may lack, too.
"""

import io
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import docker
import docker.errors

client = docker.from_env(timeout=120)


def refused(kind, part, call):
    """The call fails with an exception of just this class, whose message holds this."""
    try:
        call()
    except docker.errors.DockerException as error:
        assert type(error) is kind and part in str(error), repr(error)
        return error
    raise AssertionError(f"{part!r} should have been refused")


def system():
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.47"
    assert "box:1" in [tag for image in client.images.list() for tag in image.tags]
    assert client.info()["Swarm"]["LocalNodeState"] == "inactive"
    assert client.df()["Images"]


def runs():
    said = client.containers.run("box:1", ["sh", "-c", "echo out; echo err >&2"], remove=True, stderr=True)
    assert said == b"out\nerr\n", said
    failed = refused(docker.errors.ContainerError, "exit status 3",
                     lambda: client.containers.run("box:1", ["sh", "-c", "exit 3"], remove=True))
    assert failed.exit_status == 3
    # Each is told of its own.
    with ThreadPoolExecutor(6) as pool:
        one = lambda number: client.containers.run("box:1", ["sh", "-c", f"echo {number}"], remove=True)
        assert list(pool.map(one, range(6))) == [f"{number}\n".encode() for number in range(6)]


def container(network, volume):
    events = client.events(filters={"label": "of=sdk"}, decode=True)
    one = client.containers.run(
        "box:1", ["sh", "-c", "while :; do echo tick; sleep 1; done"], name="sdk-one", detach=True, network="sdk-net",
        volumes={"sdk-data": {"bind": "/data", "mode": "rw"}}, environment={"WORD": "hello"}, mem_limit="64m",
        labels={"of": "sdk"}, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
    )
    assert next(events)["Action"] == "create"
    while (event := next(events))["Action"] != "start":
        pass
    assert event["Actor"]["Attributes"]["name"] == "sdk-one"
    events.close()
    one.reload()
    assert one.status == "running" and one.attrs["HostConfig"]["Memory"] == 64 << 20
    said = one.exec_run(["sh", "-c", "echo $WORD; exit 4"])
    assert said == (4, b"hello\n"), said
    _, streams = one.exec_run(["sh", "-c", "echo a; echo b >&2"], demux=True)
    assert streams == (b"a\n", b"b\n"), streams
    lines = one.logs(stream=True, follow=True)
    assert next(lines).startswith(b"tick") and next(lines).startswith(b"tick")
    lines.close()
    files(one)
    network.disconnect(one)
    network.connect(one, aliases=["first"])
    one.reload()
    assert "first" in one.attrs["NetworkSettings"]["Networks"]["sdk-net"]["Aliases"]
    assert one.top()["Processes"]
    assert one.stats(stream=False)["name"].strip("/") == "sdk-one"
    stats = one.stats(decode=True)
    assert next(stats)["memory_stats"]["usage"] > 0 and next(stats)["pids_stats"]["current"] > 0
    if "cgroups" in sys.argv:
        one.pause()
        one.reload()
        assert one.status == "paused"
        one.unpause()
        one.update(mem_limit="96m", memswap_limit="96m")
        assert one.exec_run(["cat", "/sys/fs/cgroup/memory.max"]).output == b"100663296\n"
    wrong(one, network, volume)
    ends(one)


def files(one):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("word.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"write"))
    assert one.put_archive("/data", archive.getvalue())
    chunks, stat = one.get_archive("/data/word.txt")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("word.txt").read() == b"write" and stat["size"] == 5
    assert {"Kind": 1, "Path": "/new"} in (one.exec_run(["touch", "/new"]) and one.diff())


def wrong(one, network, volume):
    """Failures are of the class that the SDK makes of Docker's status and message."""
    api, missing = docker.errors.APIError, docker.errors.NotFound
    refused(docker.errors.ImageNotFound, "No such image: nope", lambda: client.images.get("nope:1"))
    refused(docker.errors.ImageNotFound, "No such image: nope", lambda: client.containers.create("nope:1"))
    refused(missing, "No such container: nope", lambda: client.containers.get("nope"))
    refused(missing, "network nope not found", lambda: client.networks.get("nope"))
    refused(missing, "no such volume", lambda: client.volumes.get("nope"))
    for status, part, call in [
        (409, "already in use", lambda: client.containers.create("box:1", ["true"], name="sdk-one")),
        (409, "volume is in use", volume.remove),
        (403, "active endpoints", network.remove),
        (409, "is running", one.remove),
        (400, "least one stream", lambda: one.logs(stdout=False, stderr=False)),
        (400, "nvalid signal", lambda: one.kill(signal="NONSENSE")),
    ]:
        found = refused(api, part, call)
        assert found.response.status_code == status and found.is_client_error(), (status, found)


def ends(one):
    one.rename("sdk-two")
    assert [c.name for c in client.containers.list(filters={"label": "of=sdk"})] == ["sdk-two"]
    events = client.events(since=1, filters={"container": "sdk-two"}, decode=True)
    assert next(events)["Type"] == "container"
    events.close()
    made = one.commit("sdk-made", tag="1", changes=["CMD [\"cat\", \"/new\"]"])
    client.images.remove(made.id, force=True)
    one.stop(timeout=0)
    assert one.wait()["StatusCode"] == 137
    one.start()
    one.kill()
    one.remove(force=True)
    refused(docker.errors.NotFound, "No such container: sdk-two", lambda: client.containers.get("sdk-two"))


def images():
    image = client.images.get("box:1")
    assert image.tag("sdk-box", tag="2")
    client.images.remove("sdk-box:2")
    assert client.images.load(b"".join(image.save(named=True)))
    text = "FROM box:1\nARG WORD\nRUN echo built $WORD >/word\nCMD [\"cat\", \"/word\"]\n"
    build = lambda text, **more: client.images.build(fileobj=io.BytesIO(text.encode()), rm=True, **more)
    built, told = build(text, tag="sdk-built:1", buildargs={"WORD": "here"}, labels={"of": "sdk"})
    assert built.labels["of"] == "sdk" and any("RUN echo" in line.get("stream", "") for line in told)
    assert client.containers.run("sdk-built:1", remove=True) == b"built here\n"
    assert built.history()
    client.images.remove("sdk-built:1")
    refused(docker.errors.BuildError, "non-zero code: 9", lambda: build("FROM box:1\nRUN exit 9\n"))
    refused(docker.errors.APIError, "unknown instruction: RUM", lambda: build("FROM box:1\nRUM true\n"))


system()
runs()
network = client.networks.create("sdk-net", driver="bridge", labels={"of": "sdk"})
volume = client.volumes.create("sdk-data", labels={"of": "sdk"})
assert [found.name for found in client.networks.list(filters={"label": "of=sdk"})] == ["sdk-net"]
assert [found.name for found in client.volumes.list(filters={"label": "of=sdk"})] == ["sdk-data"]
container(network, volume)
images()
network.remove()
volume.remove()
assert client.containers.prune() is not None and client.volumes.prune() is not None
print("all verbs work")
