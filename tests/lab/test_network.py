"""The machine as seen from its network: nothing but the ports that the settings open, tried from the next host on the
wire."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.machine import NAME, Lab
from lab.spec import HUB_PORT
from tests.lab.overrides import altered
from tests.lab.traces import eventually

ENGINES = {"llama-70b": 8002, "llama-8b": 8003}
OPEN, CLOSED = 9500, 9501
"""Ports of foreign programs that listen on every address of the machine."""

PORTS = [22, 53, 80, 111, 443, 2375, 2376, 3000, 5000, 8000, 8002, 8003, 8004, 8080, 9090, 9093, 9094, 9100, 11434]
PORTS += [OPEN, CLOSED]
"""Usual ports of servers, our engines and monitoring, Docker's own interface, and two that surely listen."""

OWNERS = """table inet owner {
  chain out {
    type filter hook output priority 5
    udp dport 9 counter drop
  }
}
"""
"""A packet filter of the owner's."""

# A port is open if it answers; refused or silent, it is of no use to a neighbour.
SCAN = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
address, seconds, *ports = sys.argv[1:]

def answers(port):
    try:
        found = socket.getaddrinfo(address, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as connection:
            connection.settimeout(float(seconds))
            connection.connect(found[4])
            return True
    except OSError:
        return False

with ThreadPoolExecutor(32) as pool:
    print(json.dumps([int(port) for port, yes in zip(ports, pool.map(answers, ports)) if yes]))
"""


def open_ports(lab: Lab, address: str, ports: list[int], seconds: float = 1.0) -> set[int]:
    """The ports that answer the neighbour within this number of seconds."""
    words = [sys.executable, "-c", SCAN, address, str(seconds), *map(str, ports)]
    done = lab.neighbour(shlex.join(words), check=True)
    return set(json.loads(done.stdout))


@dataclass(frozen=True)
class Container:
    """The engine's container, as a neighbour would address it."""

    address: str
    network: str
    port: int


@pytest.fixture(scope="module")
def lab(deployed: Lab) -> Iterator[Lab]:
    """The deployed machine, with foreign programs that listen everywhere, and a packet filter of the owner's."""
    for port in (OPEN, CLOSED):
        listen = (
            "import os, signal, socket; "
            f"held = socket.create_server(('::', {port}), family=socket.AF_INET6, dualstack_ipv6=True); "
            "tell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
            "tell.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); signal.pause()"
        )
        deployed.sudo(f'systemd-run --quiet --unit=foreign-{port} --service-type=notify python3 -c "{listen}"')
    deployed.sudo("nft -f -", input=OWNERS)
    yield deployed
    # By the console: a failed test may have blocked SSH.
    deployed.console("nft delete table inet owner 2>/dev/null; systemctl stop 'foreign-*'; true")
    deployed.console("systemctl restart rig-firewall.service")


@pytest.fixture(scope="module")
def container(lab: Lab) -> Container:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.IPPrefixLen}}{{end}}"
    address, length = lab.sudo(f"docker inspect --format '{form}' rig-llama-70b").stdout.split()
    network = lab.sudo(f"ip -4 route show dev rig0 | grep -o '^[0-9./]*/{length}'").stdout.strip()
    return Container(address, network, ENGINES["llama-70b"])


@pytest.fixture(scope="module")
def link_local(lab: Lab) -> str:
    """The machine's own IPv6 address, which needs no configuration, in the neighbour's notation."""
    (address,) = re.findall(r"inet6 (fe80::\S+)/64", lab.sudo("ip -6 addr show dev host0").stdout)
    return f"{address}%eth0"


@contextmanager
def route(lab: Lab, container: Container) -> Iterator[None]:
    """Route the neighbour's packets for the containers through the machine."""
    lab.neighbour(f"ip route add {container.network} via {lab.address}", check=True)
    try:
        yield
    finally:
        lab.neighbour(f"ip route delete {container.network}", check=True)


@contextmanager
def unfiltered(lab: Lab) -> Iterator[None]:
    """Remove our table inside the context."""
    lab.console("nft delete table inet rig")
    try:
        yield
    finally:
        lab.console("systemctl restart rig-firewall.service")


def rules(lab: Lab) -> str:
    """Our table; empty without one."""
    return lab.console("nft list table inet rig", check=False).stdout


def others(lab: Lab) -> str:
    """Every table but ours, without packet counters."""
    tables = [line for line in lab.console("nft list tables").stdout.splitlines() if line != "table inet rig"]
    assert "table inet owner" in tables and "table ip nat" in tables, "the owner's or Docker's is gone"
    listed = "".join(lab.console(f"nft list {table}").stdout for table in tables)
    return re.sub(r"packets \d+ bytes \d+", "packets N bytes N", listed)


def deploy(lab: Lab, *arguments: str, environment: dict[str, str] | None = None) -> None:
    done = lab.deploy("-y", *arguments, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]


# In


def test_a_neighbour_finds_every_port_closed(lab: Lab) -> None:
    assert open_ports(lab, lab.address, PORTS) == set()


def test_a_neighbour_finds_every_port_closed_over_ipv6(lab: Lab, link_local: str) -> None:
    assert open_ports(lab, link_local, PORTS) == set()


def test_it_is_the_packet_filter_that_closes_them(lab: Lab, link_local: str) -> None:
    """Without it, the neighbour reaches programs that listen on every address; engines still listen only on
    loopback."""
    with unfiltered(lab):
        assert open_ports(lab, lab.address, PORTS) == {22, OPEN, CLOSED}
        assert open_ports(lab, link_local, PORTS) == {22, OPEN, CLOSED}
    assert open_ports(lab, lab.address, [22, OPEN]) == set()


def test_the_operator_logs_in(lab: Lab) -> None:
    """With a connection of its own: the one that all tests share was admitted before."""
    login = ["ssh", "-F", str(lab.ssh_config), "-S", "none", NAME, "echo $SSH_CONNECTION"]
    done = subprocess.run(login, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split()[0] == lab.network.operator


def test_a_neighbour_with_a_route_does_not_reach_a_container(lab: Lab, container: Container) -> None:
    with route(lab, container):
        assert open_ports(lab, container.address, [container.port]) == set()


def test_it_is_the_packet_filter_that_keeps_neighbours_from_containers(lab: Lab, container: Container) -> None:
    with route(lab, container):
        with unfiltered(lab):
            assert open_ports(lab, container.address, [container.port]) == {container.port}
        assert open_ports(lab, container.address, [container.port]) == set()


def test_an_opening_lets_its_network_in_on_its_port_and_on_no_other(lab: Lab, link_local: str, tmp_path: Path) -> None:
    neighbour = {"port": OPEN, "protocol": "tcp", "networks": [f"{lab.network.neighbour}/32"]}
    deploy(lab, environment=altered(lab, tmp_path / "lab", {"firewall": {"allow": {"metrics": neighbour}}}))
    try:
        assert open_ports(lab, lab.address, PORTS) == {OPEN}
        assert open_ports(lab, link_local, PORTS) == set(), "the network is one of IPv4"
        assert not _answers_the_operator(lab, OPEN), "the opening is for the neighbour"
    finally:
        deploy(lab)
    assert open_ports(lab, lab.address, PORTS) == set()


# In, by bridges of the owner's

GUEST = 7000
"""Port on which every guest of an owner's bridge listens."""
GUESTS = {
    "a network of Docker": ("10.98.0.2", None, 7001),
    "a network of Docker whose bridge has a name of its own": ("10.99.0.2", "fd99::2", 7002),
    "virtual machines": ("10.97.0.2", "fd97::2", None),
}
"""Addresses of the guest, and the machine's port at which Docker publishes it."""

_GUESTS = """set -e
image=$(docker inspect --format '{{.Image}}' rig-llama-70b)
docker network create --subnet 10.98.0.0/24 plain
docker network create --ipv6 --subnet 10.99.0.0/24 --subnet fd99::/64 \\
  --opt com.docker.network.bridge.name=owner0 named
listen() { systemd-run --quiet --unit=guest-$1 nsenter --net=$2 python3 -m http.server --bind :: 7000; }
for guest in plain:7001 named:7002; do
  name=${guest%:*}
  docker run --detach --name guest-$name --network $name --publish ${guest#*:}:7000 --entrypoint sleep $image 9999
  listen $name /proc/$(docker inspect --format '{{.State.Pid}}' guest-$name)/ns/net
done
ip link add virbr0 type bridge
ip address add 10.97.0.1/24 dev virbr0
ip address add fd97::1/64 dev virbr0 nodad
ip link set virbr0 up
ip netns add guest
ip link add vnet0 type veth peer name eth0 netns guest
ip link set vnet0 master virbr0 up
ip -n guest address add 10.97.0.2/24 dev eth0
ip -n guest address add fd97::2/64 dev eth0 nodad
ip -n guest link set eth0 up
ip -n guest route add default via 10.97.0.1
ip -n guest route add default via fd97::1
listen virtual /run/netns/guest
sysctl --quiet --write net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
# Docker's own rules let nobody in but to published ports, and over IPv6 nobody is published.
iptables --policy FORWARD ACCEPT
ip6tables --policy FORWARD ACCEPT
"""
_NO_GUESTS = """
systemctl stop 'guest-*'
docker rm --force guest-plain guest-named
docker network rm plain named
ip netns delete guest
ip link delete virbr0
ip6tables --policy FORWARD DROP
iptables --policy FORWARD DROP
true
"""


@pytest.fixture(scope="module")
def guests(lab: Lab, link_local: str) -> Iterator[Lab]:
    """The machine with bridges of its owner's, and a neighbour with routes to them through the machine."""
    lab.sudo(_GUESTS)
    routes = [f"ip route add 10.{number}.0.0/24 via {lab.address}" for number in (97, 98, 99)]
    way = link_local.partition("%")[0]
    routes += [f"ip route add fd{number}::/64 via {way} dev eth0" for number in (97, 99)]
    # With this source address, the machine has a route back to the neighbour.
    routes += ["ip address add fd00::3/64 dev eth0 nodad"]
    lab.sudo("ip address add fd00::2/64 dev host0 nodad")
    lab.neighbour(" && ".join(routes), check=True)
    yield lab
    lab.neighbour("; ".join(line.replace(" add ", " delete ").replace(" nodad", "") for line in routes))
    lab.sudo(f"ip address delete fd00::2/64 dev host0\n{_NO_GUESTS}")


def _reachable(lab: Lab) -> set[str]:
    """The guests that answer the neighbour, and by which address."""
    found = set()
    for name, (v4, v6, published) in GUESTS.items():
        found |= {f"{name}, IPv4"} if open_ports(lab, v4, [GUEST]) else set()
        found |= {f"{name}, IPv6"} if v6 and open_ports(lab, v6, [GUEST]) else set()
        found |= {f"{name}, published"} if published and open_ports(lab, lab.address, [published]) else set()
    return found


def test_no_guest_of_any_bridge_is_reachable_by_a_neighbour(guests: Lab) -> None:
    """Docker's networks, those with a bridge of their own name, virtual machines: over IPv4, IPv6 and published."""
    assert _reachable(guests) == set()


def test_it_is_the_packet_filter_that_keeps_neighbours_from_every_guest(guests: Lab) -> None:
    with unfiltered(guests):
        open_ones = _reachable(guests)
    assert open_ones >= {
        *(f"{name}, published" for name in list(GUESTS)[:2]),
        *(f"virtual machines, IPv{version}" for version in (4, 6)),
        "a network of Docker whose bridge has a name of its own, IPv6",
    }


def test_a_published_port_of_the_settings_lets_its_networks_in_by_that_port_alone(
    guests: Lab, link_local: str, tmp_path: Path
) -> None:
    """Over IPv4, and over IPv6 with and without a translation of addresses; never by a container's own address."""
    neighbour = [f"{guests.network.neighbour}/32", "fd00::3/128", "fe80::/10"]
    containers = {name: {"port": port, "networks": [*neighbour]} for name, port in (("plain", 7001), ("named", 7002))}
    deploy(guests, environment=altered(guests, tmp_path / "lab", {"firewall": {"containers": containers}}))
    try:
        assert _reachable(guests) == {f"{name}, published" for name in list(GUESTS)[:2]}
        assert open_ports(guests, "fd00::2", [7001, 7002, GUEST]) == {7001, 7002}
        assert open_ports(guests, link_local, [7001, 7002, GUEST]) == {7001, 7002}
        assert open_ports(guests, guests.address, PORTS) == set()
        assert not _answers_the_operator(guests, 7001), "the opening is for the neighbour"
    finally:
        deploy(guests)
    assert _reachable(guests) == set()
    assert open_ports(guests, "fd00::2", [7001, 7002]) == set()


def test_guests_of_a_bridge_reach_each_other_and_the_world(guests: Lab) -> None:
    image = guests.sudo("docker inspect --format '{{.Image}}' guest-plain").stdout.strip()
    for network, other in (("plain", "10.98.0.2"), ("named", "10.99.0.2")):
        for address, port in ((guests.network.services, HUB_PORT), (other, GUEST)):
            ask = ["docker", "run", "--rm", f"--network={network}", "--entrypoint=bash", image, "-c"]
            guests.sudo(f"timeout 30 {shlex.join([*ask, f'exec 3<>/dev/tcp/{address}/{port}'])}")


# Out


def test_the_machine_reaches_what_it_needs(lab: Lab) -> None:
    hub = f"http://{lab.network.services}:{HUB_PORT}/admin/counters"
    assert json.loads(lab.ssh(f"curl --silent --fail --max-time 10 {hub}").stdout) is not None
    lab.sudo("apt-get update -o APT::Update::Error-Mode=any")


def test_a_container_reaches_what_it_needs(lab: Lab) -> None:
    """In Docker's own network, and in the engines'."""
    image = lab.sudo("docker inspect --format '{{.Image}}' rig-llama-70b").stdout.strip()
    ask = (
        f"exec 3<>/dev/tcp/{lab.network.services}/{HUB_PORT}; "
        r"printf 'GET /admin/counters HTTP/1.0\r\n\r\n' >&3; head -n 1 <&3"
    )
    for network in ("bridge", "rig_rig"):
        run = ["docker", "run", "--rm", f"--network={network}", "--entrypoint=bash", image, "-c", ask]
        assert "200" in lab.sudo(f"timeout 30 {shlex.join(run)}").stdout


# Other packet filters


def test_a_deploy_that_loads_our_table_leaves_all_others_alone(lab: Lab) -> None:
    before, ours = others(lab), rules(lab)
    lab.console("nft delete table inet rig")
    deploy(lab)
    assert rules(lab) == ours != ""
    assert others(lab) == before


def test_without_the_firewall_our_table_is_gone_and_all_others_are_there(lab: Lab) -> None:
    before, ours = others(lab), rules(lab)
    deploy(lab, "--data", "firewall.enabled=false")
    try:
        assert rules(lab) == ""
        assert others(lab) == before
        assert lab.sudo("systemctl list-unit-files --no-legend rig-firewall.service", check=False).stdout == ""
        assert lab.sudo("find /etc -name firewall.nft -o -path '*/nftables.service.d/*'").stdout == ""
    finally:
        deploy(lab)
    assert rules(lab) == ours
    assert others(lab) == before


def test_the_distributions_filter_which_flushes_everything_does_not_leave_us_without(lab: Lab) -> None:
    ours = rules(lab)
    try:
        # Docker's rules come back after each, more often than its unit may start in a minute by itself.
        for verb in ("start", "reload", "reload", "reload", "restart", "stop"):
            lab.console(f"systemctl {verb} nftables.service")
            assert rules(lab) == ours, verb
            loaded = "table inet filter" in lab.console("nft list tables").stdout
            assert loaded == (verb != "stop"), "it did not do its own work"
            if verb != "stop":
                eventually(lambda: "chain DOCKER" not in lab.console("nft list ruleset").stdout, seconds=60)
    finally:
        # Flushed rules of Docker's and the owner's are loaded again.
        lab.console("systemctl stop nftables.service; systemctl restart docker.service rig-firewall.service")
        lab.sudo("nft list table inet owner >/dev/null 2>&1 || nft -f -", input=OWNERS)


def _answers_the_operator(lab: Lab, port: int) -> bool:
    try:
        with socket.create_connection((lab.address, port), timeout=1):
            return True
    except OSError:
        return False
