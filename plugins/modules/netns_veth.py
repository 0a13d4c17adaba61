#!/usr/bin/python
# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
---
module: netns_veth
short_description: Gives containers a network namespace and links into it
version_added: 0.1.0
author: ["bare.containers contributors (@bare-containers)"]
description:
  - Makes a named network namespace C(/run/netns/NAME), which C(ip netns) knows too, and a veth pair into it, with addresses,
    a default route, and the host's side of it. The namespace outlives the container's process.
  - The host's end stands alone and holds the gateway's address, or is a port of O(bridge), which then holds it. It is called
    C(bare-NAME), that of a further link C(bare-NAME-INTERFACE), with a digest in place of what is longer than 10 characters.
  - All of the namespace is the container's. Links, addresses and routes in there that are not declared are removed; lo is up.
    IPv6 link-local addresses are the kernel's own affair.
  - Address translation, published ports and what is forwarded are rules of one nftables table, C(inet bare_containers), which is
    replaced as a whole. All other rules of the host are left alone. Every rule has a counter, and the name of its container or
    link as its comment. Where another firewall drops what the host forwards (docker and ufw do, firewalld outside of its
    trusted zone), it has to let the containers' links pass. What it drops no table of ours can accept, so this module warns of it,
    with the command that lets them pass.
  - The host forwards IPv4 (C(net.ipv4.ip_forward)) as long as it is the gateway of a declared container, and IPv6
    (C(net.ipv6.conf.all.forwarding)) as long as one with an IPv6 address has O(nat) or O(publish). When the last of them goes,
    these settings get the value back that they had before.
  - Bridges and links of this module take no router advertisements. A bridge made by this module goes with its last container.
  - Containers behind one O(bridge), or in one O(vlan) of it, find each other by name, over IPv4 and IPv6. Each has the names of all of them, with the first
    address of each family, at the end of its C(/etc/hosts). When one comes or goes, this module writes them anew in those of the
    others, which go on running. With O(dns=dynamic) a name server on the host tells them too.
  - Everything is kept as shell commands under C(/var/lib/bare-containers) too, and with systemd as PID 1 the unit
    C(bare-network.service) rebuilds it all at boot with them.
extends_documentation_fragment:
  - bare.containers.attributes
  - bare.containers.attributes.action_group
  - bare.containers.batch
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - python3-pyroute2 >= 0.7.2
  - nftables, for O(nat), O(publish), O(isolate), O(internal), O(allow) and O(deny)
  - iproute2, for rebuilding at boot
  - dnsmasq >= 2.88 (Debian's dnsmasq-base), for O(dns=dynamic)
  - a kernel whose bridges filter VLANs, and its module 8021q, for O(vlan) and O(vlan_trunk)
options:
  state:
    description:
      - With V(absent) the namespace, the link and the rules are removed, and what was only there for them.
    type: str
    choices: [present, absent]
    default: present
  interface:
    description: The name of the link inside. This and the options up to O(mac_address) are about the container's first link.
    type: str
    default: eth0
  kind:
    description:
      - What kind of link it is. V(veth) is a pair of links, one of them on the host, which forwards and filters what passes.
      - V(macvlan) and V(ipvlan) put the container beside the host on O(parent), into the network that this is in; the first with
        a MAC address of its own, the second with the parent's. The host neither forwards for it nor filters what it sends, and the
        two don't reach each other over O(parent). O(bridge), O(vlan), O(internal), O(nat) and O(publish) are for V(veth) alone, and
        O(gateway) is a router of that network.
    type: str
    choices: [veth, macvlan, ipvlan]
    default: veth
  parent:
    description: The link of the host that is shared. It has to be there, and is no port of a bridge.
    type: str
  mode:
    description:
      - How it is shared, in the words of C(ip link). By default V(bridge) with O(kind=macvlan), where the containers on one parent
        reach each other, and V(l2) with O(kind=ipvlan).
      - With V(private) and V(vepa) they don't, unless a switch sends it back. With V(passthru) one container has the parent alone.
      - The kernel has one mode for all links of O(kind=ipvlan) that share a parent.
    type: str
    choices: [bridge, private, vepa, passthru, l2, l3, l3s]
  address:
    description:
      - Addresses of the link inside, each with its prefix length, such as V(10.200.0.2/24) or V(fd00:200::2/64).
      - The first one of each family is where published ports lead. No two containers on a host have the same address,
        and a subnet is behind one bridge, or behind one container's own link.
    type: list
    elements: str
    default: []
  subnet:
    description:
      - Subnets such as V(10.200.0.0/24) or V(fd00:200::/64), from each of which the container gets an address, unless one of O(address)
        is in it.
      - It is the first that no container of this collection, no gateway and not the host itself has. It is kept with the declaration,
        so that the container has the same on every run, and is free for others when the container is absent or in another subnet.
    type: list
    elements: str
    default: []
  gateway:
    description:
      - The address on the host's side, which the default route leads to; at most one of each family, inside the subnet of an
        O(address).
      - By default the first host address of the subnet of the first O(address) of each family.
      - On a bridge that this module did not make, the address is not set anywhere. It is then somebody else's.
    type: list
    elements: str
    default: []
  default_route:
    description:
      - Whether the default route of each family that has a O(gateway) leads there, over this link. With V(false) here, and nowhere
        V(true) under O(interfaces), the container reaches only what it has O(routes) to.
    type: bool
    default: true
  routes:
    description:
      - Further routes over the link. They are set again with it, and others that somebody has set are removed.
    type: list
    elements: dict
    default: []
    suboptions:
      to:
        description: The destination, a network such as V(198.51.100.0/24), an address, or V(default).
        type: str
        required: true
      via:
        description: The router, an address in a subnet of O(address). Without it, the destination is on the link itself.
        type: str
      metric:
        description: Of several routes to one destination, the one with the lowest is taken. By default the kernel's usual one.
        type: int
  bridge:
    description:
      - The bridge that the host's end is a port of. It is made when it does not exist, and then belongs to this module, with all its
        addresses, its VLANs, and links of these that are named after it.
      - A bridge that exists otherwise is used as it is.
    type: str
  vlan:
    description:
      - The VLAN of the O(bridge) that the container is in, from 1 to 4094. What it sends is of that VLAN without its knowing, and only
        what is of that VLAN gets to it without a tag.
      - Each VLAN is as a bridge by itself. Who is in another one is reached only where the host forwards, O(isolate) and O(internal)
        are of the VLAN, and so are names and the O(gateway), which is on a link C(BRIDGE.VLAN) of the host, such as C(bare0.10). One
        that no container has an address in has no such link, and the host takes no part in it.
      - By default VLAN 1, which the bridge itself is in, or what a bridge that this module did not make puts its ports in.
      - The bridge tells VLANs apart (C(vlan_filtering)) as soon as one of its containers has this or O(vlan_trunk). One that this module
        did not make has to do so already.
    type: int
  vlan_trunk:
    description:
      - Further VLANs of the O(bridge) that the container sends to and gets from with a tag, each a number or a range such as V(20-30).
    type: list
    elements: str
    default: []
  mtu:
    description: The greatest packet of the link, at both ends.
    type: int
    default: 1500
  mac_address:
    description:
      - The MAC address of the link inside. One of O(kind=ipvlan) has its parent's.
      - By default derived from O(name), so that it is the same on every run and every host.
    type: str
  bandwidth:
    description:
      - How much the link carries at most. Rates are in bits per second, such as V(10M) or V(10mbit), with powers of 1000 and from V(8k)
        to V(34G).
      - The directions are the container's, as those of CNI's bandwidth plugin and of Kubernetes are.
      - By a token bucket (C(tc-tbf)) at the end that sends. A container that has C(CAP_NET_ADMIN) can remove that of O(bandwidth.egress),
        until the next run.
    type: dict
    suboptions:
      ingress:
        description: What goes into the container. For O(kind=veth) alone.
        type: str
      egress:
        description: What comes out of the container.
        type: str
  interfaces:
    description:
      - Further links of the container, each described as the first one is by the options of the same names. They are told by
        their O(interfaces[].interface); adding or removing one leaves the others as they are.
      - The links of one container are in different subnets.
    type: list
    elements: dict
    default: []
    suboptions:
      interface:
        description: The name of the link inside.
        type: str
        required: true
      kind:
        description: As O(kind).
        type: str
        choices: [veth, macvlan, ipvlan]
        default: veth
      parent:
        description: As O(parent).
        type: str
      mode:
        description: As O(mode).
        type: str
        choices: [bridge, private, vepa, passthru, l2, l3, l3s]
      address:
        description: As O(address).
        type: list
        elements: str
        default: []
      subnet:
        description: As O(subnet).
        type: list
        elements: str
        default: []
      gateway:
        description: As O(gateway).
        type: list
        elements: str
        default: []
      default_route:
        description: As O(default_route). Of each family, one link of the container has the default route.
        type: bool
        default: false
      routes:
        description: As O(routes).
        type: list
        elements: dict
        default: []
        suboptions:
          to:
            description: As O(routes[].to).
            type: str
            required: true
          via:
            description: As O(routes[].via).
            type: str
          metric:
            description: As O(routes[].metric).
            type: int
      bridge:
        description: As O(bridge).
        type: str
      vlan:
        description: As O(vlan).
        type: int
      vlan_trunk:
        description: As O(vlan_trunk).
        type: list
        elements: str
        default: []
      mtu:
        description: As O(mtu).
        type: int
        default: 1500
      mac_address:
        description: As O(mac_address). By default derived from the names of the container and of the link.
        type: str
      bandwidth:
        description: As O(bandwidth).
        type: dict
        suboptions:
          ingress:
            description: As O(bandwidth.ingress).
            type: str
          egress:
            description: As O(bandwidth.egress).
            type: str
      isolate:
        description: As O(isolate).
        type: bool
        default: true
      internal:
        description: As O(internal). Only the others of the container's links lead outside then, and from there to it.
        type: bool
        default: false
      dns:
        description: As O(dns).
        type: str
        choices: [static, dynamic]
        default: static
      dns_domain:
        description: As O(dns_domain).
        type: str
  nat:
    description:
      - Whether what the container sends out by other links of the host gets the host's address (masquerading).
    type: bool
    default: false
  publish:
    description:
      - Ports of the host that lead to the container, as V(HOSTPORT:PORT), V(HOSTPORT:PORT/udp) or V(HOSTIP:HOSTPORT:PORT), with an
        IPv6 V(HOSTIP) in brackets. Without V(HOSTIP) a port is published on all addresses of the host.
      - Either may be a range, as in V(8000-8099:8000-8099), of as many ports of the host as of the container. The protocol is
        V(/tcp), V(/udp) or V(/sctp).
      - The container sees who asks by the address that it comes from, unless that is of the container's own subnet or the host's
        localhost, which the answer would not find back to through the host.
      - The host itself reaches them on its own addresses, C(127.0.0.1) included, but not on C(::1), and not on C(127.0.0.1) where
        the container is on a bridge that this module did not make. For that C(route_localnet) is set on the bridge or link, and the
        firewall drops everything between containers and C(127.0.0.0/8).
    type: list
    elements: str
    default: []
  isolate:
    description:
      - Whether only those behind the same O(bridge) and the host itself can open connections to the container, others only by a
        port that it publishes. With V(false), so can containers of other bridges, and whoever else has a route through the host.
      - It is alike for all containers of a bridge, and has no effect on a bridge that this module did not make.
    type: bool
    default: true
  internal:
    description:
      - Whether the containers of the O(bridge) reach each other and the host, and nothing else. They have no default route, and the
        host forwards nothing from or to the bridge.
      - It is alike for all containers of a bridge, goes with neither O(nat) nor O(publish), and not with a bridge that this module
        did not make.
    type: bool
    default: false
  dns:
    description:
      - How the containers of the O(bridge) learn of each other's names. With V(static), by their C(/etc/hosts) alone.
      - With V(dynamic), also by a name server, for programs that read no C(/etc/hosts), or read it once. It is a C(dnsmasq) on the host
        for each such bridge, which answers the containers' names and addresses at the gateways of the bridge, to nobody but those
        behind it. All other questions it asks the host's resolvers, or with O(internal) nobody. What it knows is always what the
        containers' C(/etc/hosts) say, and a name of theirs is never asked of others.
      - The C(/etc/resolv.conf) of a container has the gateways then, unless M(bare.containers.container_process) is told otherwise with
        C(dns). One that has O(allow) with C(to) takes an entry for port 53 of the gateway, of V(udp) and of V(tcp).
      - With systemd as PID 1 it is a service C(bare-dns@BRIDGE), else a process that nobody starts again but this module.
      - It is alike for all containers of a bridge, and takes a O(gateway) and a bridge that this module makes.
    type: str
    choices: [static, dynamic]
    default: static
  dns_domain:
    description:
      - A domain that the names of the containers are in, too, with O(dns=dynamic). The container C(web) is found as C(web) and as C(web.)
        and the domain, and what else is asked for in the domain is not there.
      - It is alike for all containers of a bridge.
    type: str
  allow:
    description:
      - The connections that others may open to the container, with C(from), and that it may open itself, with C(to). With an entry of
        one of them, all others of that direction are dropped; with none, all are allowed.
      - Each entry is a dictionary of C(from) or C(to), an address, a network or V(any); of C(protocol), V(tcp), V(udp), V(sctp) or
        V(icmp), by default all; and of C(port), one or a range such as V(8000-8099), of the one to whom the connection is opened.
        With a C(port), V(tcp) is the default.
      - The rules are a table C(inet bare_containers) in the container's own network namespace, where they see what comes from the
        same bridge too, and its ports and addresses as the container does. What is published is asked for by its port inside, and
        the host's localhost by the gateway's address. Answers always pass, and what goes over lo.
      - A container with CAP_NET_ADMIN can change what is in its namespace.
    type: list
    elements: dict
    default: []
  deny:
    description:
      - The connections that others may not open to the container, or that it may not open itself, in the words of O(allow). It comes
        before O(allow), and ends what is open already.
    type: list
    elements: dict
    default: []
seealso:
  - module: bare.containers.container_process
"""

EXAMPLES = r"""
- name: A web server behind a bridge, published on port 8080
  bare.containers.netns_veth:
    name: web
    bridge: bare0
    address: 10.200.0.2/24
    nat: true
    publish: ["8080:80"]

- name: Addresses that are chosen, and then kept
  bare.containers.netns_veth:
    batch:
      - {name: worker1, bridge: bare4, subnet: [10.205.0.0/24, "fd00:205::/64"], nat: true}
      - {name: worker2, bridge: bare4, subnet: [10.205.0.0/24, "fd00:205::/64"], nat: true}

- name: As in the lesson, a pair of links and nothing else
  bare.containers.netns_veth:
    name: lesson
    address: 10.201.0.2/24
    nat: true

- name: Many containers in one task
  bare.containers.netns_veth:
    batch:
      - {name: front, bridge: bare1, address: [10.202.0.2/24, "fd00:202::2/64"], publish: ["127.0.0.1:8081:80", "5353:53/udp"]}
      - {name: back, bridge: bare1, address: 10.202.0.3/24}
      - {name: media, bridge: bare1, address: 10.202.0.4/24, publish: ["20000-20099:20000-20099/udp", "9899:9899/sctp"]}

- name: A database that nobody but the containers beside it and the host reach, and that reaches nobody else
  bare.containers.netns_veth:
    name: store
    bridge: bare2
    address: [10.203.0.2/24, "fd00:203::2/64"]
    internal: true

- name: Containers that find each other by a name server, as app1 and as app1.apps.internal
  bare.containers.netns_veth:
    batch:
      - {name: app1, bridge: bare5, subnet: [10.206.0.0/24], nat: true, dns: dynamic, dns_domain: apps.internal}
      - {name: app2, bridge: bare5, subnet: [10.206.0.0/24], nat: true, dns: dynamic, dns_domain: apps.internal}

- name: A service for its neighbours and whom it is published for, that reaches a name server and nothing else
  bare.containers.netns_veth:
    name: service
    bridge: bare3
    address: 10.204.0.2/24
    nat: true
    publish: ["8443:443"]
    allow:
      - {from: any, port: 443}
      - {from: 10.204.0.0/24, protocol: icmp}
      - {to: 192.0.2.53, protocol: udp, port: 53}
    deny:
      - {from: 198.51.100.0/24}

- name: A second link, to a network of storage hosts, and a way to others behind one of them
  bare.containers.netns_veth:
    name: archive
    bridge: bare1
    address: 10.202.0.9/24
    interfaces:
      - interface: eth1
        bridge: bare8
        address: ["10.208.0.9/24", "fd00:208::9/64"]
        mtu: 9000
        routes:
          - {to: 198.51.100.0/24, via: 10.208.0.3}
          - {to: "2001:db8:9::/48", via: "fd00:208::3", metric: 50}

- name: Two tenants behind one bridge, each in a VLAN of its own, and a monitor that sees both with their tags
  bare.containers.netns_veth:
    batch:
      - {name: tenant1, bridge: bare9, vlan: 10, address: [10.209.10.2/24, "fd00:209:10::2/64"], nat: true}
      - {name: tenant2, bridge: bare9, vlan: 20, address: 10.209.20.2/24, nat: true}
      - {name: monitor, bridge: bare9, address: 10.209.0.2/24, vlan_trunk: [10, 20-29]}

- name: Not more than 100 Mbit/s into the container, and 20 Mbit/s out of it
  bare.containers.netns_veth:
    name: mirror
    bridge: bare1
    address: 10.202.0.10/24
    bandwidth: {ingress: 100M, egress: 20M}

- name: Beside the host, in the network that its link eno1 is in
  bare.containers.netns_veth:
    name: printer
    kind: macvlan
    parent: eno1
    address: 192.0.2.40/24

- name: No network any more
  bare.containers.netns_veth:
    name: lesson
    state: absent
"""

RETURN = r"""
netns:
  description: The path of the network namespace.
  returned: O(name) is given and O(state=present)
  type: str
  sample: /run/netns/web
interface:
  description: The name of the link inside.
  returned: O(name) is given and O(state=present)
  type: str
  sample: eth0
host_interface:
  description: The name of the link's end on the host, or none where the link shares one of the host's.
  returned: O(name) is given and O(state=present)
  type: str
  sample: bare-web
parent:
  description: The link of the host that it shares, or none.
  returned: O(name) is given and O(state=present)
  type: str
mac_address:
  description: The MAC address of the link inside, or none of its own.
  returned: O(name) is given and O(state=present)
  type: str
  sample: "02:50:38:d1:10:4e"
address:
  description: The addresses inside, each with its prefix length, in the order declared, those of O(subnet) last.
  returned: O(name) is given and O(state=present)
  type: list
  elements: str
  sample: [10.200.0.2/24]
gateway:
  description: The addresses that the default routes lead to; none for an internal network.
  returned: O(name) is given and O(state=present)
  type: list
  elements: str
  sample: [10.200.0.1]
bridge:
  description: The bridge that the link is a port of, or none.
  returned: O(name) is given and O(state=present)
  type: str
  sample: bare0
name_servers:
  description: The addresses at which the bridge's name server answers; none without O(dns=dynamic).
  returned: O(name) is given and O(state=present)
  type: list
  elements: str
  sample: [10.200.0.1]
vlan:
  description: The VLAN of the bridge that it is in without a tag, where one was asked for.
  returned: O(name) is given and O(state=present)
  type: int
  sample: 10
vlan_trunk:
  description: The VLANs that it is in with a tag.
  returned: O(name) is given and O(state=present)
  type: list
  elements: str
  sample: ["20-30"]
interfaces:
  description: All links of the container, the first of which is the one above.
  returned: O(name) is given and O(state=present)
  type: list
  elements: dict
  contains:
    interface:
      description: The name of the link inside.
      returned: always
      type: str
    host_interface:
      description: The name of the link's end on the host, or none.
      returned: always
      type: str
    parent:
      description: The link of the host that it shares, or none.
      returned: always
      type: str
    mac_address:
      description: The MAC address of the link inside.
      returned: always
      type: str
    address:
      description: The addresses inside, each with its prefix length.
      returned: always
      type: list
      elements: str
    gateway:
      description: The addresses of the link's gateways.
      returned: always
      type: list
      elements: str
    bridge:
      description: The bridge that the link is a port of, or none.
      returned: always
      type: str
    name_servers:
      description: The addresses at which the bridge's name server answers.
      returned: always
      type: list
      elements: str
    vlan:
      description: The VLAN that it is in without a tag, where one was asked for.
      returned: always
      type: int
    vlan_trunk:
      description: The VLANs that it is in with a tag.
      returned: always
      type: list
      elements: str
commands:
  description: The shell commands for what was changed, or would be in check mode, in order.
  returned: always
  type: list
  elements: str
  sample: ["ip netns add web", "ip -n web link set dev lo up"]
containers:
  description:
    - What became of each entry, by name, with all of the above.
    - What the containers share is there too; V(_firewall) is the nftables table, V(_host) the bridges and forwarding, V(_names)
      the names by which they find each other, V(_dns) the name servers, V(_boot) the unit that rebuilds all of it.
  returned: O(batch) is given
  type: dict
  contains:
    changed:
      description: Whether it was changed, or would be in check mode.
      returned: always
      type: bool
    failed:
      description: Whether it could not be brought to the declared state.
      returned: always
      type: bool
    msg:
      description: Why not.
      returned: on failure
      type: str
"""

from collections.abc import Sequence

from ..module_utils.converge import Resource
from ..module_utils.module import Entry, run_module
from ..module_utils.network.container import ContainerNetwork
from ..module_utils.network.dns import NameServers
from ..module_utils.network.firewall import Firewall
from ..module_utils.network.names import Names
from ..module_utils.network.options import OPTIONS
from ..module_utils.network.shared import Host
from ..module_utils.network.survey import Survey
from ..module_utils.network.unit import BootUnit


def main() -> None:
    survey = Survey()

    def build(entries: Sequence[Entry]) -> list[Resource]:
        survey.declare(entries)
        containers = [ContainerNetwork(survey, entry["name"]) for entry in entries]
        shared = (Firewall(survey, warns=True), Host(survey))
        return [*shared, *containers, Names(survey), NameServers(survey), BootUnit(survey)]

    run_module(OPTIONS, build, refresh=survey.refresh, shared_lock="_network")


if __name__ == "__main__":
    main()
