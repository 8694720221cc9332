"""What Schemathesis sends to the API server, led beyond the first check that would refuse it, and what of the answers
is a fault.

Random names and bodies alone find no object and no kind. So most requests name the namespace, kind and object that
`attack.py` made, and most bodies are that object with parts of what was generated. The choices follow from the
generated values, so that a request can be made again.
"""

import atexit
import base64
import collections
import copy
import json
import os
import threading
import time
import zlib

import cbor2
import requests
import schemathesis

with open(os.environ["ATTACK_SEEDS"], encoding="utf-8") as file:
    SEEDS = json.load(file)
NAMESPACE = "walk"
BODIES = ["application/json", "application/yaml", "application/cbor"]
ANSWERS = [
    "application/json",
    "application/yaml",
    "application/cbor",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
    "*/*",
]
# Values that lead further than the first check; None leaves a parameter out.
PLAUSIBLE = {
    "dryRun": ["All", None, None],
    "fieldValidation": ["Strict", "Warn", "Ignore"],
    "fieldManager": ["one", "other"],
    "force": ["true", None],
    "propagationPolicy": ["Background", "Foreground", "Orphan"],
    "gracePeriodSeconds": ["0", "5"],
    "resourceVersion": ["0", "1", "20", None],
    "resourceVersionMatch": ["Exact", "NotOlderThan", None, None],
    "continue": [None],
    "limit": ["1", "2", "500"],
    "labelSelector": ["a=b", "a in (b,c),!d", None],
    "fieldSelector": ["metadata.name=walk-1", "spec.nodeName=", None, None],
    "sendInitialEvents": ["true", None],
}
STEPS = ["add", "remove", "replace", "move", "copy", "test"]

lock = threading.Lock()
codes = collections.Counter()
accepted = collections.Counter()
findings = []
slowest = (0.0, "")


def chance(value, sides, salt):
    """A number below `sides` that follows from a value."""
    return zlib.crc32(f"{salt}{value!r}".encode(errors="replace")) % sides


def every_type(content):
    """`*/*` written out."""
    return [ty for given in content for ty in (BODIES if given == "*/*" else [given])]


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for item in raw_schema.get("paths", {}).values():
        for operation in item.values():
            if not isinstance(operation, dict):
                continue
            if "consumes" in operation:
                operation["consumes"] = every_type(operation["consumes"])
            content = operation.get("requestBody", {}).get("content")
            if content and "*/*" in content:
                operation["requestBody"]["content"] = dict.fromkeys(BODIES, content["*/*"])


@schemathesis.serializer("application/cbor", "application/apply-patch+cbor")
def to_cbor(context, value):
    return value if isinstance(value, bytes) else cbor2.dumps(value)


@schemathesis.hook
def before_call(context, case, kwargs):
    definition = case.operation.definition.raw
    kind = definition.get("x-kubernetes-group-version-kind") or {}
    names = [kind.get("group", ""), kind.get("version", ""), kind.get("kind", "")]
    seed = SEEDS.get("/".join(names)) or SEEDS.get("paths", {}).get(case.path.partition("/{name}")[0])
    query = case.query if isinstance(case.query, dict) else {}
    # A watch goes on by design; 0 would mean half an hour, or more.
    if "watch" in str(query):
        query["timeoutSeconds"] = 1
        case.query = query
    lead(case, seed)
    if isinstance(case.body, dict):
        case.body = body(case, seed, names)
    if chance(query, 3, "accept") == 0 and case.headers is not None:
        case.headers["Accept"] = ANSWERS[chance(case.path_parameters, len(ANSWERS), "type")]


def lead(case, seed):
    """Names what there is, in most requests."""
    names = case.path_parameters or {}
    if isinstance(case.query, dict):
        for name in PLAUSIBLE.keys() & case.query.keys():
            values = PLAUSIBLE[name]
            if chance(case.query[name], 5, name):
                case.query[name] = values[chance(case.query[name], len(values), "plausible" + name)]
        case.query = {name: value for name, value in case.query.items() if value is not None}
    if "namespace" in names and chance(names["namespace"], 10, "n"):
        names["namespace"] = NAMESPACE
    if "name" in names and seed and chance(names["name"], 10, "o") < 8:
        names["name"] = seed.get("metadata", {}).get("name", "walk")
    # Without controllers a namespace that is being deleted stays so, and takes nothing more.
    if case.method.upper() == "DELETE" and case.path == "/api/v1/namespaces/{name}" and names["name"] == NAMESPACE:
        names["name"] = "other"


def body(case, seed, names):
    made = case.body
    if case.media_type == "application/json-patch+json":
        return steps(made) if chance(made, 20, "steps") else made
    whole = case.method.upper() != "PATCH" or (case.media_type or "").startswith("application/apply-patch")
    if case.operation.definition.raw.get("x-kubernetes-action") in ("delete", "deletecollection"):
        return made
    if seed and chance(made, 2, "seed"):
        made = mixed(seed, made, 0)
        if isinstance(made.get("metadata"), dict):
            made["metadata"].pop("resourceVersion", None)
    if whole and chance(made, 20, "kind"):
        group, version, name = names
        made["apiVersion"] = f"{group}/{version}" if group else version
        made["kind"] = name
        metadata = made.setdefault("metadata", {})
        if isinstance(metadata, dict) and chance(made, 10, "name"):
            named = (case.path_parameters or {}).get("name")
            metadata["name"] = named if isinstance(named, str) else f"made-{chance(made, 500, 'number')}"
            metadata.pop("namespace", None)
    return made


def mixed(ours, made, depth):
    """An object with some of the fields of another one."""
    result = copy.deepcopy(ours)
    for key, value in made.items():
        inner = result.get(key)
        if isinstance(inner, dict) and isinstance(value, dict) and depth < 6:
            result[key] = mixed(inner, value, depth + 1)
        elif isinstance(inner, list) and isinstance(value, list) and inner and value and depth < 6:
            if isinstance(inner[0], dict) and isinstance(value[0], dict):
                inner[0] = mixed(inner[0], value[0], depth + 1)
        elif chance((key, value), 3, depth) == 0:
            result[key] = value
    return result


def steps(made):
    """A JSON patch of the fields of an object."""
    paths = ["", "/metadata", "/metadata/labels/a", "/spec", "/spec/-", "/metadata/name", "/status", "/data/x~1"]
    result = []
    for key, value in list(made.items())[:8]:
        step = {"op": STEPS[chance(key, len(STEPS), "op")], "path": paths[chance(value, len(paths), "path")]}
        if chance(value, 2, "own"):
            step["path"] += "/" + key
        step["from"] = paths[chance(key, len(paths), "from")]
        step["value"] = value
        result.append(step)
    return result


# What kube-apiserver answers, too: of a version that is not there yet, that is no number (both as recorded from it), or
# that a new object has; of an applied field that the kind has not (kubernetes/kubernetes#139253); and for the proxies of
# a service without endpoints and of a node without addresses.
UPSTREAM = [
    (504, "Too large resource version"),
    (500, "resourceVersion: Invalid value: "),
    (500, "resourceVersion should not be set on objects to be created"),
    (500, "failed to create typed patch object ("),
    (503, "no endpoints available for service "),
    (500, "no preferred addresses found; known addresses: "),
]


def upstream(status, text):
    """What kube-apiserver says so, too; None for an answer of ours alone."""
    return next((known for code, known in UPSTREAM if code == status and known in text), None)


@schemathesis.hook
def after_call(context, case, response):
    global slowest
    text = response.content[:2000].decode(errors="replace")
    with lock:
        codes[response.status_code] += 1
        if response.elapsed > slowest[0]:
            slowest = (response.elapsed, f"{response.request.method} {response.request.url}"[:500])
        if response.status_code < 500:
            return
        if known := upstream(response.status_code, text):
            accepted[f"{response.status_code} {known}"] += 1
        else:
            found(f"answered {response.status_code}", response.request, text)


def watched(session, request, **options):
    """Sends a request, whose answer must come, and to its end."""
    try:
        return send(session, request, **options)
    except requests.RequestException as error:
        with lock:
            found(f"no answer: {type(error).__name__}", request, str(error))
        raise


# Schemathesis' own hook for this does not see the answers that begin and have no end.
send, requests.Session.send = requests.Session.send, watched


@schemathesis.hook
def filter_failure(context, failure, case, response):
    return not upstream(response.status_code, response.content[:2000].decode(errors="replace"))


def found(what, request, text):
    sent = request.body or b""
    sent = sent.encode() if isinstance(sent, str) else sent
    headers = {key: str(value) for key, value in request.headers.items()}
    finding = {"what": what, "method": request.method, "url": request.url, "headers": headers, "answer": text}
    findings.append({**finding, "at": time.time(), "body": base64.b64encode(sent).decode()})


@atexit.register
def report():
    result = {"codes": codes, "accepted": accepted, "findings": findings, "slowest": slowest}
    with open(os.environ["ATTACK_REPORT"], "w", encoding="utf-8") as file:
        json.dump(result, file)
