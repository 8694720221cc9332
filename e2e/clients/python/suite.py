"""What programs do with the Python client, on a running cluster that KUBECONFIG names.

Prints a line per part and ends with 0 if every part did what it does on Kubernetes.
"""

import logging
import sys
import threading
import time
import uuid

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

NAMESPACE = "python"


def refused(code, reason, call):
    """What the server says of a call that it must refuse."""
    try:
        call()
    except ApiException as error:
        assert error.status == code, error
        assert f'"reason":"{reason}"' in error.body, error.body
        return error
    raise AssertionError(f"not refused with {code} {reason}")


def config_map(name, **data):
    labels = {"suite": "python"}
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def create_read_update_delete():
    core = client.CoreV1Api()
    made = core.create_namespaced_config_map(NAMESPACE, config_map("a", key="1"))
    assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo is not None
    refused(409, "AlreadyExists", lambda: core.create_namespaced_config_map(NAMESPACE, config_map("a")))
    refused(422, "Invalid", lambda: core.create_namespaced_config_map(NAMESPACE, config_map("A_b")))
    read = core.read_namespaced_config_map("a", NAMESPACE)
    assert read.data == {"key": "1"}
    read.data["key"] = "2"
    replaced = core.replace_namespaced_config_map("a", NAMESPACE, read)
    assert replaced.data == {"key": "2"}
    # The object that was read is old now.
    refused(409, "Conflict", lambda: core.replace_namespaced_config_map("a", NAMESPACE, read))
    core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
    refused(404, "NotFound", lambda: core.read_namespaced_config_map("dry", NAMESPACE))
    for name in "bcdef":
        core.create_namespaced_config_map(NAMESPACE, config_map(name))
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="suite=python", limit=2, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == list("abcdef"), names
    core.delete_namespaced_config_map("a", NAMESPACE)
    refused(404, "NotFound", lambda: core.read_namespaced_config_map("a", NAMESPACE))
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="suite=python")
    assert core.list_namespaced_config_map(NAMESPACE, label_selector="suite=python").items == []


def patches():
    core = client.CoreV1Api()
    core.create_namespaced_config_map(NAMESPACE, config_map("patched", a="1", b="2"))
    patch = lambda body: core.patch_namespaced_config_map("patched", NAMESPACE, body).data
    assert patch({"data": {"a": None, "c": "3"}}) == {"b": "2", "c": "3"}
    assert patch([{"op": "replace", "path": "/data/b", "value": "9"}]) == {"b": "9", "c": "3"}
    refused(422, "Invalid", lambda: patch([{"op": "test", "path": "/data/b", "value": "0"}]))
    applied = core.patch_namespaced_config_map(
        "patched",
        NAMESPACE,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "patched"}, "data": {"d": "4"}},
        field_manager="suite",
        _content_type="application/apply-patch+yaml",
    )
    assert applied.data == {"b": "9", "c": "3", "d": "4"}
    assert [entry for entry in applied.metadata.managed_fields if entry.operation == "Apply"][0].manager == "suite"


def watches():
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    for name in "xyz":
        core.create_namespaced_config_map(NAMESPACE, config_map(name))
    seen = []
    first = watch.Watch()
    for event in first.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=start):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 2:
            first.stop()
    # Another watch goes on where this one stopped: nothing is missing, and nothing comes twice.
    core.delete_namespaced_config_map("x", NAMESPACE)
    second = watch.Watch()
    for event in second.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=first.resource_version):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            second.stop()
    wanted = [("ADDED", "x"), ("ADDED", "y"), ("ADDED", "z"), ("DELETED", "x")]
    assert seen == wanted, seen
    # A watch ends when its time is over.
    assert list(watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, timeout_seconds=1,
                                     label_selector="suite=nobody")) == []


def pod(name, *arguments):
    container = client.V1Container(name="main", image="skiff.local/hello:1", command=["/skiff", "hello", *arguments])
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name),
                        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1))


def is_ready(object):
    return any(c.type == "Ready" and c.status == "True" for c in object.status.conditions or [])


def wait_for_pod(name):
    waiting = watch.Watch()
    for event in waiting.stream(client.CoreV1Api().list_namespaced_pod, NAMESPACE,
                                field_selector=f"metadata.name={name}", timeout_seconds=60):
        if is_ready(event["object"]):
            waiting.stop()
            return
    raise AssertionError(f"{name} is not ready")


def pods():
    core = client.CoreV1Api()
    core.create_namespaced_pod(NAMESPACE, pod("web"))
    wait_for_pod("web")
    run = lambda command, **more: stream(core.connect_get_namespaced_pod_exec, "web", NAMESPACE, command=command,
                                         stdin=False, stdout=True, stderr=True, tty=False, **more)
    said = run(["/skiff", "version"])
    assert said.startswith("skiff "), said
    answer = run(["/skiff", "frobnicate"], _preload_content=False)
    answer.run_forever(timeout=30)
    assert answer.returncode == 2, answer.returncode

    forwarded = portforward(core.connect_get_namespaced_pod_portforward, "web", NAMESPACE, ports="8080")
    connection = forwarded.socket(8080)
    connection.settimeout(30)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    answer = b""
    while piece := connection.recv(4096):
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200") and b"web" in answer, answer
    assert forwarded.error(8080) is None, forwarded.error(8080)

    lines = watch.Watch()
    log = lines.stream(core.read_namespaced_pod_log, "web", NAMESPACE, follow=True)
    first = next(log)
    assert first, "a line of the log"
    # The log ends with its pod.
    core.delete_namespaced_pod("web", NAMESPACE)
    for _ in log:
        pass


def deployments():
    apps = client.AppsV1Api()
    template = {"metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 1,
                         "containers": [{"name": "main", "image": "skiff.local/hello:1"}]}}
    utils.create_from_dict(client.ApiClient(), {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}})
    until = watch.Watch()
    for event in until.stream(apps.list_namespaced_deployment, NAMESPACE, timeout_seconds=60):
        if event["object"].status.available_replicas == 2:
            until.stop()
    scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
    scale.spec.replicas = 0
    assert apps.replace_namespaced_deployment_scale("web", NAMESPACE, scale).spec.replicas == 0
    apps.delete_namespaced_deployment("web", NAMESPACE, propagation_policy="Foreground")


def every_kind_by_its_name():
    found = dynamic.DynamicClient(client.ApiClient())
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    made = maps.create(body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}},
                       namespace=NAMESPACE)
    assert maps.get(name="dynamic", namespace=NAMESPACE).metadata.uid == made.metadata.uid
    applied = maps.server_side_apply(
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"k": "v"}},
        namespace=NAMESPACE, field_manager="suite")
    assert applied.data.k == "v"
    maps.delete(name="dynamic", namespace=NAMESPACE)
    assert len(found.resources.search(kind="Deployment")) >= 1


def leaders():
    """Two candidates: one leads, and the other after it has stopped."""
    # What ends the first leader is meant to.
    logging.getLogger("leaderelection").setLevel(logging.CRITICAL)
    order, first_leads, first_may_stop = [], threading.Event(), threading.Event()

    def elect(identity, started):
        lock = LeaseLock("leader", NAMESPACE, identity)
        return leaderelection.LeaderElection(electionconfig.Config(
            lock, lease_duration=3, renew_deadline=2, retry_period=1, onstarted_leading=started,
            onstopped_leading=lambda: order.append(f"{identity} stopped")))

    def first():
        order.append("first leads")
        first_leads.set()
        first_may_stop.wait()
        # A leader whose work fails gives up.
        raise RuntimeError("the work of the first leader ends here")

    second_leads = threading.Event()

    def second():
        order.append("second leads")
        second_leads.set()
        threading.Event().wait()

    one = threading.Thread(target=elect(f"first-{uuid.uuid4()}", first).run, daemon=True)
    one.start()
    assert first_leads.wait(30), order
    threading.Thread(target=elect(f"second-{uuid.uuid4()}", second).run, daemon=True).start()
    first_may_stop.set()
    assert second_leads.wait(30), order
    assert order[0] == "first leads" and order[-1] == "second leads", order
    lease = client.CoordinationV1Api().read_namespaced_lease("leader", NAMESPACE)
    assert lease.spec.holder_identity.startswith("second-")


def main():
    config.load_kube_config()
    namespace = client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE))
    client.CoreV1Api().create_namespace(namespace)
    for part in [create_read_update_delete, patches, watches, pods, deployments, every_kind_by_its_name, leaders]:
        started = time.monotonic()
        part()
        print(f"python: {part.__name__}, {time.monotonic() - started:.1f} s", flush=True)
    client.CoreV1Api().delete_namespace(NAMESPACE)


if __name__ == "__main__":
    sys.exit(main())
