"""Whether static programs find others by their names: alone in a root folder with what kubelet puts there, each must ask the DNS
server of resolv.conf, and connect to the address that it gets. Run as root of a network and a mount namespace of its own."""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading

NAME = "api.k3k-expose.svc"
PATIENCE = 20
# Of what every runtime gives a container: where no libc is linked at run time, chance is read from here.
DEVICES = ["/dev/random", "/dev/urandom"]
# Of nobody's: clients want one before they ask for names.
AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUOPY+rjFjU4m3FK2P11XJps2EOwgwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyNjE3NDczOVoYDzIxMjYxMTAyMTc0
NzM5WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATTRxnDrIpuZyfEQCMeQXQiGHKJxwQ53tCTLmYVuNXodYzG7ddMBa3GC/1fKG9d
0mnSzwPs3OuzR4F532cVotX+o1MwUTAdBgNVHQ4EFgQU565tzMvy24ANTgzF7ENU
SMutsqEwHwYDVR0jBBgwFoAU565tzMvy24ANTgzF7ENUSMutsqEwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBk2KyS9ZQDIdBb48kdT+z3BxxHZGx9
yk2EqWMSDSvi+wIgRsM49d+gXx2DkjgvaYAe6cQ8QbKvcXzrZdwXmUl7Drk=
-----END CERTIFICATE-----
"""
SET_FLAGS, IFF_UP = 0x8914, 1
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "%s", certificate-authority: /etc/ca.crt}}]
users: [{name: u, user: {token: none}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
"""


def serve_names(server, asked):
    """Answers every question for an IPv4 address with 127.0.0.1, and every other one with nothing (RFC 1035)."""
    while True:
        query, peer = server.recvfrom(512)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += query[at] + 1
        asked.add(".".join(labels))
        is_address = query[at + 1 : at + 3] == b"\0\1"
        counts = b"\0\1" + (b"\0\1" if is_address else b"\0\0") + b"\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x7f\0\0\1" if is_address else b""
        server.sendto(query[:2] + b"\x81\x80" + counts + query[12 : at + 5] + record, peer)


def check(program, asked):
    root = tempfile.mkdtemp()
    started = None
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(PATIENCE)
            url = f"https://{NAME}:{listener.getsockname()[1]}"
            shutil.copy(program, root + "/program")
            os.mkdir(root + "/etc")
            os.mkdir(root + "/dev")
            for device in DEVICES:
                open(root + device, "w").close()
                subprocess.run(["mount", "--bind", device, root + device], check=True)
            texts = {"resolv.conf": "nameserver 127.0.0.1\n", "hosts": "127.0.0.1 localhost\n"}
            for file, text in (texts | {"ca.crt": AUTHORITY, "kubeconfig": KUBECONFIG % url}).items():
                with open(f"{root}/etc/{file}", "w") as out:
                    out.write(text)
            env = {"K3K_EXPOSE_KUBECONFIG": "/etc/kubeconfig"}
            if program.endswith("agent"):
                env |= {"K3K_EXPOSE_VIRTUAL_SERVER": url, "K3K_EXPOSE_HOST_API_URL": url, "POD_NAME": "pod"}
            started = subprocess.Popen(["/program"], preexec_fn=lambda: (os.chroot(root), os.chdir("/")), env=env)
            asked.clear()
            listener.accept()[0].close()
        assert NAME in asked, asked
        print(f"{os.path.basename(program)} asked for {NAME} and came")
    finally:
        if started:
            started.kill()
            started.wait()
        for device in DEVICES:
            subprocess.run(["umount", root + device], check=True)
        shutil.rmtree(root)


def main():
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    asked = set()
    threading.Thread(target=serve_names, args=(server, asked), daemon=True).start()
    for program in sys.argv[1:]:
        check(program, asked)


main()
