"""The server: the engine behind HTTP. The bodies of the protocols are read and written by `sambay.protocols`."""

from sambay.server.app import create_app
from sambay.server.models import Models, ServedModel
from sambay.server.settings import Settings

__all__ = ["Models", "ServedModel", "Settings", "create_app"]
