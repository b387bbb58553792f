"""The main verbs through Docker's Python SDK; DOCKER_HOST says where the daemon is."""

import io
import tarfile

import docker
import docker.errors

client = docker.from_env(timeout=60)
assert client.ping()
assert client.version()["ApiVersion"] == "1.47"
assert "box:1" in [tag for image in client.images.list() for tag in image.tags]

said = client.containers.run("box:1", ["sh", "-c", "echo out; echo err >&2"], remove=True, stderr=True)
assert said == b"out\nerr\n", said
try:
    client.containers.run("box:1", ["sh", "-c", "exit 3"], remove=True)
    raise AssertionError("a failure is an exception")
except docker.errors.ContainerError as error:
    assert error.exit_status == 3

network = client.networks.create("sdk-net", driver="bridge", labels={"of": "sdk"})
volume = client.volumes.create("sdk-data")
one = client.containers.run(
    "box:1", ["sh", "-c", "while :; do echo tick; sleep 1; done"], name="sdk-one", detach=True, network="sdk-net",
    volumes={"sdk-data": {"bind": "/data", "mode": "rw"}}, environment={"WORD": "hello"}, mem_limit="64m",
    labels={"of": "sdk"}, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
)
one.reload()
assert one.status == "running" and one.attrs["HostConfig"]["Memory"] == 64 << 20
said = one.exec_run(["sh", "-c", "echo $WORD; exit 4"])
assert said == (4, b"hello\n"), said
_, streams = one.exec_run(["sh", "-c", "echo a; echo b >&2"], demux=True)
assert streams == (b"a\n", b"b\n"), streams
assert next(one.logs(stream=True)).startswith(b"tick")

archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    info = tarfile.TarInfo("word.txt")
    info.size = 5
    tar.addfile(info, io.BytesIO(b"write"))
assert one.put_archive("/data", archive.getvalue())
chunks, stat = one.get_archive("/data/word.txt")
with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
    assert tar.extractfile("word.txt").read() == b"write" and stat["size"] == 5

assert one.top()["Processes"]
assert one.stats(stream=False)["name"].strip("/") == "sdk-one"
one.rename("sdk-two")
assert [c.name for c in client.containers.list(filters={"label": "of=sdk"})] == ["sdk-two"]
events = client.events(since=1, filters={"container": "sdk-two"}, decode=True)
assert next(events)["Type"] == "container"
events.close()
one.stop(timeout=0)
assert one.wait()["StatusCode"] == 137
one.start()
one.kill()
one.remove(force=True)
try:
    client.containers.get("sdk-two")
    raise AssertionError("it is gone")
except docker.errors.NotFound as error:
    assert "No such container: sdk-two" in str(error)

image = client.images.get("box:1")
assert image.tag("sdk-box", tag="2")
client.images.remove("sdk-box:2")
assert client.images.load(b"".join(image.save(named=True)))
network.remove()
volume.remove()
assert client.containers.prune() is not None and client.volumes.prune() is not None
assert client.info()["Swarm"]["LocalNodeState"] == "inactive"
print("all verbs work")
