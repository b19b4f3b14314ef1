"""A Go program that stays, as service.go has it, and asks for what it is told to."""
import os, subprocess
from asked import equal, row


class Client:
    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen([f"{os.environ['MORE']}/{name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, requests, at_once, version, protocol, base):
        """TLS 1.`version`, HTTP/`protocol`."""
        print(requests, at_once, version, protocol, base, file=self.process.stdin)
        equal(int(self.process.stdout.readline()), requests)
        path = "/" + base.split("/", 3)[3]
        for number in range(requests):
            status = (200, 404)[number % 2]
            row("http", "GET", f"{path}/{status}?n={number}", str(status))
