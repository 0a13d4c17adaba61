# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an image is unpacked by hand: the shell commands that image.py's work comes to.

They go by paths, so it takes trust in the layers that nothing leaves the tree, which image.py does without.
A directory that a layer has a file in place of goes beforehand: tar's --recursive-unlink, which is meant for
that, takes all that there is for the entry ``./``.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ..shell import command
from . import oci, store

_LAYERS = r"""cd STORE
chain= below= layers=
for blob in $(skopeo inspect --format '{{range .Layers}}{{println .}}{{end}}' dir:image | cut -d : -f 2); do
  blob=STORE/image/$blob
  digest=$(CONTENT | sha256sum | cut -d ' ' -f 1)
  chain=${chain:+$(printf 'sha256:%s sha256:%s' "$chain" "$digest" | sha256sum | cut -d ' ' -f 1)}
  chain=${chain:-$digest}
  layer=STORE/layers/sha256-$chain
  if [ ! -d "$layer" ]; then
    mkdir -p "$layer/tree" work merged
    if [ "$below" ]; then
      chown --reference="${below%%:*}" "$layer/tree"
      chmod --reference="${below%%:*}" "$layer/tree"
      plain=index=off,metacopy=off,redirect_dir=off
      mount -t overlay -o "lowerdir=$below,upperdir=$layer/tree,workdir=work,$plain" overlay merged
    else
      mount --bind "$layer/tree" merged
    fi
    cd merged
    tar --list --file "$blob" | sed -n 's|^\(.*/\)\?\.wh\.\.wh\.\.opq$|./\1|p' | while IFS= read -r opaque; do
      [ ! -d "$opaque" ] || find "$opaque" -mindepth 1 -delete
    done
    tar --list --file "$blob" | sed -n '/\.wh\.\.wh\./d; s|^\(.*/\)\?\.wh\.\([^/]*\)$|./\1\2|p' \
    | while IFS= read -r removed; do
      rm -rf "$removed"
    done
    tar --list --file "$blob" | sed '/\/$/d; s|^|./|' | while IFS= read -r path; do
      [ -L "$path" ] || [ ! -d "$path" ] || rm -r "$path"
    done
    tar --extract --file "$blob" --exclude='.wh.*' --numeric-owner --preserve-permissions \
      --keep-directory-symlink --xattrs --xattrs-include='user.*' --xattrs-include=security.capability
    cd STORE
    umount merged
    rm -r work merged
    MANIFEST
  fi
  below=$layer/tree${below:+:$below} layers="$layers sha256-$chain"
done
cd /"""

_DESCRIBE = """import json, sys
store, origin, *layers = sys.argv[1:]
manifest = json.load(open(store + "/image/manifest.json"))
blob, *blobs = [it["digest"].split(":")[1] for it in [manifest["config"], *manifest["layers"]]]
said = json.load(open(store + "/image/" + blob)).get("config") or {}
config = {name: said[name] for name in NAMES if said.get(name)}
config.update({name: sorted(config[name]) for name in ("ExposedPorts", "Volumes") if name in config})
made = {"blobs": blobs, "config": config, "layers": layers, "origins": [origin]}
print(json.dumps(made, sort_keys=True))"""


def commands(fetch: str, origin: str) -> tuple[str, ...]:
    """The shell commands around ``fetch``, which puts the image in directory(). In ``origin``, what it is
    found again by, the shell may have something to expand."""
    top = str(store.root())
    layers = _LAYERS.replace("CONTENT", store.content_of('"$blob"')).replace("MANIFEST", store.MANIFEST)
    describe = shlex.quote(_DESCRIBE.replace("NAMES", repr(oci.CONFIGURATION)))
    return (
        fetch,
        f'image=sha256-$(sha256sum < {directory()}/manifest.json | cut -d " " -f 1)',
        layers.replace("STORE", top),
        f"mkdir -p {top}/images",
        f'python3 -c {describe} {top} "{origin}" $layers > {top}/images/$image.json',
        command(["rm", "-r", directory()]),
    )


def directory() -> Path:
    """Where the image is put meanwhile."""
    return store.root() / "image"
