"""Attacks an API server of its own with Schemathesis, by every OpenAPI document that it publishes.

    attack.py SKIFF SECONDS SCRATCH

starts `SKIFF apiserver` below the directory SCRATCH, makes an object of every kind, and gives each document a part of
the time by the number of its operations. A finding is an answer 5xx that upstream would not give, no answer within 30 s,
or a panic. Prints the findings and how many requests were made; ends with 0 if there is no finding.
"""

import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import requests
import yaml

HERE = pathlib.Path(__file__).resolve().parent
SAMPLES = HERE.parents[2] / "apiserver/tests/walk/samples.yaml"
NAMESPACE = "walk"
SHORTEST = 20
TIMEOUT = 30


class Server:
    """A server, and the administrator's way to it."""

    def __init__(self, skiff, scratch):
        self.data, self.log = scratch / "data", scratch / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        command = [skiff, "apiserver", "--data-dir", self.data, "--bind", address, "--node-ip", "127.0.0.1"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        self.url = f"https://{address}"
        self.pki = self.data / "pki"
        self.session = requests.Session()
        # The environment's authorities and proxies are for the world outside.
        self.session.trust_env = False
        self.session.verify = str(self.pki / "ca.crt")
        self.session.cert = (str(self.pki / "admin.crt"), str(self.pki / "admin.key"))

    def ready(self):
        for _ in range(300):
            try:
                if self.session.get(f"{self.url}/readyz", timeout=5).ok:
                    return
            except (OSError, requests.RequestException):
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"the server does not start:\n{self.log.read_text()}")

    def get(self, path):
        answer = self.session.get(self.url + path, timeout=TIMEOUT)
        answer.raise_for_status()
        return answer.json()

    def memory(self):
        """Resident memory in MiB."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
        return 0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def seed(server, creates, number):
    """An object of every kind, by group, version and kind, and by path; what is there already stays."""
    core = f"{server.url}/api/v1/namespaces"
    for url, name in [(core, NAMESPACE), (f"{core}/{NAMESPACE}/serviceaccounts", "default")]:
        server.session.post(url, json={"metadata": {"name": name}}, timeout=TIMEOUT)
    text = SAMPLES.read_text().replace("$N", str(number))
    made = {"paths": {}}
    for sample in yaml.safe_load_all(text):
        if not sample:
            continue
        for given in [*sample.get("before", []), sample["object"]]:
            group, _, version = given["apiVersion"].rpartition("/")
            key = f"{group}/{version}/{given['kind']}"
            path = creates.get(key)
            if path is None:
                continue
            url = server.url + path.replace("{namespace}", NAMESPACE)
            answer = server.session.post(url, json=given, timeout=TIMEOUT)
            if answer.status_code not in (200, 201, 409) and number == 0:
                print(f"not made: {key}: {answer.status_code} {answer.text[:300]}", flush=True)
        made[key] = made["paths"][path] = sample["object"]
    return made


def operations(document):
    """Path, method and definition of each operation."""
    for path, item in document.get("paths", {}).items():
        for method, definition in item.items():
            if isinstance(definition, dict):
                yield path, method, definition


def attack(server, name, document, seconds, scratch):
    """One run; what its hooks counted."""
    folder = scratch / "runs" / name.strip("/").replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "document.json").write_text(json.dumps(document))
    report = folder / "report.json"
    command = [pathlib.Path(sys.executable).parent / "st", "--no-color", "run", folder / "document.json"]
    command += ["--url", server.url, "--tls-verify", server.session.verify]
    command += ["--request-cert", server.session.cert[0], "--request-cert-key", server.session.cert[1]]
    command += ["--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--max-time", str(seconds)]
    command += ["--request-timeout", str(TIMEOUT), "--max-redirects", "0", "--warnings", "off", "--no-shrink"]
    command += ["--suppress-health-check", "all", "--generation-database", "none", "--continue-on-failure"]
    outside = re.compile("(?i).*_(proxy|ca_bundle)$")
    environment = {
        **{name: value for name, value in os.environ.items() if not outside.match(name)},
        "PYTHONPATH": str(HERE),
        "SCHEMATHESIS_HOOKS": "hooks",
        "ATTACK_SEEDS": str(scratch / "seeds.json"),
        "ATTACK_REPORT": str(report),
    }
    with open(folder / "log", "wb") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            run.wait(seconds + 120)
        except subprocess.TimeoutExpired:
            # Making an example may take long; what was counted so far is written at an interrupt.
            run.send_signal(signal.SIGINT)
            run.wait(60)
        finally:
            run.kill()
    if not report.exists():
        raise SystemExit(f"Schemathesis failed on {name}:\n{(folder / 'log').read_text()[-3000:]}")
    return json.loads(report.read_text())


def main():
    skiff, seconds, scratch = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
    # So that the server ends with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    server = Server(skiff, scratch)
    try:
        server.ready()
        failed = campaign(server, seconds, scratch)
    finally:
        code = server.process.poll()
        if code is None:
            code = server.stop()
    log = server.log.read_text(errors="replace")
    if code != 0 or "panicked" in log:
        failed = True
        print(f"the server ended with {code}; the end of its log:\n{log[-3000:]}")
    sys.exit(1 if failed else 0)


def campaign(server, seconds, scratch):
    """All documents; whether there is a finding."""
    paths = server.get("/openapi/v3")["paths"]
    documents = {name: server.get(entry["serverRelativeURL"]) for name, entry in paths.items()}
    creates = {}
    for document in documents.values():
        for path, _, definition in operations(document):
            kind = definition.get("x-kubernetes-group-version-kind", {})
            if definition.get("x-kubernetes-action") == "post" and "{name}" not in path:
                creates["/".join(kind.get(part, "") for part in ("group", "version", "kind"))] = path
    documents["/openapi/v2"] = server.get("/openapi/v2")
    documents = {name: document for name, document in documents.items() if document.get("paths")}
    sizes = {name: sum(1 for _ in operations(document)) for name, document in documents.items()}
    whole, end = sum(sizes.values()), time.monotonic() + seconds
    codes, accepted, findings = collections.Counter(), collections.Counter(), []
    slowest, before, peak = [0.0, ""], server.memory(), 0
    for number, name in enumerate(sorted(documents, key=sizes.get)):
        (scratch / "seeds.json").write_text(json.dumps(seed(server, creates, number)))
        # In ascending order, so that what one document leaves over is for those after it.
        share = max(SHORTEST, int((end - time.monotonic()) * sizes[name] / whole))
        whole -= sizes[name]
        report = attack(server, name, documents[name], share, scratch)
        codes.update(report["codes"])
        accepted.update(report["accepted"])
        findings += report["findings"]
        slowest, peak = max(slowest, report["slowest"]), max(peak, server.memory())
        requests_made = sum(report["codes"].values())
        line = f"{name}: {sizes[name]} operations, {share} s, {requests_made} requests, {len(report['findings'])} findings"
        print(line, flush=True)
        if server.process.poll() is not None:
            break
    (scratch / "findings.json").write_text(json.dumps(findings, indent=1))
    shown = collections.Counter()
    for finding in findings:
        kind = f"{finding['what']} {finding['answer'][:60]}"
        shown[kind] += 1
        if shown[kind] <= 3:
            print(f"{finding['what']}: {finding['method']} {finding['url'][:300]}\n  {finding['answer'][:500]}")
    counted = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
    print(f"{sum(codes.values())} requests ({counted})")
    print(f"answers 5xx that are upstream's: {dict(accepted)}")
    print(f"{len(findings)} findings; the slowest answer took {slowest[0]:.2f} s: {slowest[1]}")
    print(f"resident memory {before} MiB before, {peak} MiB at most between the documents")
    return bool(findings)


main()
