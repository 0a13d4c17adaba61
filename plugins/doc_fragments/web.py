# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """How web servers are asked, in the words of ansible.builtin.get_url."""

    DOCUMENTATION = r"""
options:
  client_cert:
    description: A file on the managed host with a certificate to show to the server, in PEM format, which may also have its key.
    type: path
  client_key:
    description: A file on the managed host with the key of O(client_cert), in PEM format.
    type: path
  ciphers:
    description: The TLS ciphers to use, as OpenSSL names them.
    type: list
    elements: str
  url_username:
    description: A user name for HTTP basic authentication. It and the password are sent to every server that is asked.
    type: str
  url_password:
    description: The password of O(url_username). It is never kept or shown.
    type: str
  force_basic_auth:
    description: Sends user name and password with the first request, not only when the server asks for them.
    type: bool
    default: false
  use_gssapi:
    description: Authenticates by GSSAPI, such as Kerberos. It takes the Python library gssapi.
    type: bool
    default: false
  use_netrc:
    description: Whether user names and passwords are taken from C(~/.netrc) of root.
    type: bool
    default: true
  use_proxy:
    description: Whether the proxies of the environment are used, as E(https_proxy).
    type: bool
    default: true
  http_agent:
    description: What to call oneself in the C(User-Agent) header.
    type: str
  headers:
    description: Further headers of the request. Their values are never kept or shown.
    type: dict
  unredirected_headers:
    description: Headers that are not sent again to where a server leads.
    type: list
    elements: str
"""
