"""Wiring of exports: from settings to an exporter, and to its endpoints."""

from app.api.admin import Routes
from app.api.exports import Exports
from app.proxy.namespace import Namespace
from app.registry.bucket import Bucket
from app.settings import Settings
from app.transfer.exports.exporting import Exporter


def create_exporter(settings: Settings, bucket: Bucket) -> Exporter:
    """Exports by the names that clients use with these settings."""
    upstreams = [Namespace(upstream) for upstream in settings.proxy.upstreams]
    return Exporter(bucket, upstreams, settings.proxy.default_upstream)


def export_routes(settings: Settings, bucket: Bucket) -> Routes:
    """What admins ask over HTTP."""
    exporter = create_exporter(settings, bucket)
    exports = Exports(exporter.download, exporter.inventory)
    return {
        "/api/v1/export": {"GET": exports.get, "POST": exports.post},
        "/api/v1/inventory": {"GET": exports.get_inventory},
    }
