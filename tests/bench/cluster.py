"""A namespace of a real cluster for the length of a measurement."""

import json
import os
import pathlib
import shlex
import subprocess

from measure import IMAGE, PLUGIN, ROOT, Failure, built, need, say

IMAGE_OF_PODS = os.environ.get("SNIFF_TEST_IMAGE", "localhost/sniff-test/busybox:1")
# A page is asked for some thirty times a second, so that hardly any time passes between a capture's start and its first packet.
SCRIPT = """mkdir -p /tmp/w; echo hello >/tmp/w/index.html; httpd -p 8080 -h /tmp/w
while true; do wget -q -O /dev/null http://127.0.0.1:8080/; sleep 0.02; done"""


class Namespace:
    def __init__(self):
        self.name = f"sniff-bench-{os.getpid()}"
        self.environment = dict(os.environ)
        built(PLUGIN, "cargo build --release")
        kubeconfig = os.environ.get("SNIFF_TEST_KUBECONFIG")
        if kubeconfig:
            self.environment["KUBECONFIG"] = kubeconfig
        else:
            self.start_cluster()
        # kubectl finds its plugins by name on PATH.
        self.environment["PATH"] = f"{PLUGIN.parent}:{self.environment['PATH']}"
        need("kubectl", "kubectl, or let tests/cluster/cluster build it")

    def start_cluster(self):
        script = ROOT / "tests" / "cluster" / "cluster"
        for words in (["up"], ["load", built(IMAGE, "make image")]):
            say(f"  tests/cluster/cluster {' '.join(map(str, words))}")
            done = subprocess.run([script, *words], capture_output=True, text=True)
            if done.returncode:
                raise Failure(
                    f"tests/cluster/cluster {words[0]}: {done.stderr.strip()[-500:]}", "SNIFF_TEST_KUBECONFIG names another cluster"
                )
        folder = pathlib.Path(os.environ.get("SNIFF_CLUSTER_DIR", "/var/tmp/kubectl-sniff-cluster"))
        self.environment["KUBECONFIG"] = str(folder / "admin.kubeconfig")
        self.environment["PATH"] = f"{folder / 'bin'}:{self.environment['PATH']}"

    def kubectl(self, *words, given=None):
        done = subprocess.run(["kubectl", *words], env=self.environment, input=given, capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"{shlex.join(['kubectl', *words])}: {done.stderr.strip()}")
        return done.stdout

    def __enter__(self):
        self.kubectl("create", "namespace", self.name)
        return self

    def __exit__(self, *_):
        self.kubectl("delete", "namespace", self.name, "--wait=false")

    def apply(self, thing):
        """Makes an object; a new namespace has no service account yet, for which its controller waits."""
        self.kubectl("create", "-f", "-", given=json.dumps(thing))

    def pod(self, name):
        """A pod that asks itself for a page, again and again; returns when it runs."""
        container = {"name": "web", "image": IMAGE_OF_PODS, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", SCRIPT]}
        spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.name}, "spec": spec}
        # A new namespace has no service account yet.
        for attempt in range(50):
            try:
                self.kubectl("create", "-f", "-", given=json.dumps(pod))
                break
            except Failure as failure:
                if "serviceaccount" not in str(failure) or attempt == 49:
                    raise
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", self.name, "--timeout=60s")

    def delete(self, name):
        self.kubectl("delete", "pod", name, "-n", self.name, "--wait=false")
