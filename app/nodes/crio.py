"""CRI-O: the files of podman; its daemon takes up mirrors when it is told to reload."""

from typing import Final

from app.nodes import podman
from app.nodes.files import ClientFiles
from app.nodes.site import Site

FOLDER: Final = "/etc/crio"
RELOAD: Final = "systemctl reload crio"


def configure(site: Site) -> ClientFiles:
    """Everything below /etc/containers; an authority is read at every pull, the rest at a reload."""
    files = podman.container_files(site)
    reload = any(file.path == podman.REGISTRIES for file in files)
    return ClientFiles("crio", files=files, restart=(RELOAD,) if reload else (), notes=tuple(podman.notes(site)))
