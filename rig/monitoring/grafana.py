"""Grafana in a container: its compose file and provisioning, as plain values."""

from __future__ import annotations

import json
from typing import Any

import yaml

from rig.monitoring import dashboards
from rig.settings import Settings

UNIT = "rig-grafana.service"
CONTAINER = "rig-grafana"
HOME = "/etc/rig/grafana"
COMPOSE = f"{HOME}/compose.yaml"
SEEN_AS = "/etc/grafana/rig"
"""The provisioning folder inside the container."""
USER = "472:0"
"""The image's user and group (GF_UID, GF_GID)."""


def texts(settings: Settings) -> dict[str, str]:
    """The content of every file, by its path on the machine."""
    made = {
        COMPOSE: _yaml(compose(settings)),
        f"{HOME}/provisioning/datasources/prometheus.yaml": _yaml(source(settings)),
        f"{HOME}/provisioning/dashboards/rig.yaml": _yaml(provider()),
    }
    return made | {
        f"{HOME}/dashboards/{dashboard.name}.json": json.dumps(dashboards.document(dashboard), indent=1) + "\n"
        for dashboard in dashboards.ALL
    }


def compose(settings: Settings) -> dict[str, Any]:
    """The compose file. It uses the machine's network, as Prometheus is on loopback; Grafana listens there, too."""
    grafana = settings.monitoring.grafana
    service = {
        "image": grafana.image,
        "container_name": CONTAINER,
        "network_mode": "host",
        "environment": {
            "TZ": settings.machine.timezone,
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(grafana.port),
            "GF_PATHS_PROVISIONING": f"{SEEN_AS}/provisioning",
            # No login: everybody on the machine may look, as in Prometheus, and change nothing.
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_AUTH_BASIC_ENABLED": "false",
            "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
            # No reports to its maker.
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_NEWS_NEWS_FEED_ENABLED": "false",
            # From 11.5 on it installs and updates unpinned plugins at each start.
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
            "GF_PLUGINS_PREINSTALL_AUTO_UPDATE": "false",
        },
        "user": USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges=true"],
        # Its data are made again from these files at each start.
        "tmpfs": ["/tmp:size=64m,mode=1777", "/var/lib/grafana:size=256m,mode=0770,uid=472,gid=0"],
        "volumes": [
            {
                "type": "bind",
                "source": HOME,
                "target": SEEN_AS,
                "read_only": True,
                "bind": {"create_host_path": False},
            }
        ],
        "mem_limit": grafana.memory.lower(),
        "memswap_limit": grafana.memory.lower(),
        "pids_limit": 256,
    }
    return {"name": "rig-grafana", "services": {"grafana": service}}


def source(settings: Settings) -> dict[str, Any]:
    """The data source."""
    url = f"http://127.0.0.1:{settings.monitoring.prometheus.port}"
    interval = {"timeInterval": settings.monitoring.scrape_interval}
    prometheus = {"uid": dashboards.SOURCE, "name": "Prometheus", "type": "prometheus", "access": "proxy", "url": url}
    return {"apiVersion": 1, "datasources": [prometheus | {"isDefault": True, "editable": False, "jsonData": interval}]}


def provider() -> dict[str, Any]:
    """The provider: the folder of the dashboards."""
    files = {"name": "rig", "type": "file", "disableDeletion": True, "options": {"path": f"{SEEN_AS}/dashboards"}}
    return {"apiVersion": 1, "providers": [files]}


def _yaml(document: dict[str, Any]) -> str:
    head = "# Written by Rig from group_data/ (monitoring.grafana): a change made here is undone by the next deploy.\n"
    return head + yaml.safe_dump(document, sort_keys=False, width=110)
