"""What can be away for a while, and come back, keeps no worker from starting: it is told, and what can be had is."""

import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from mkiso.errors import PatientApiUnavailable
from mkiso.installation import Installation
from tests.integration.conftest import Site
from tests.integration.test_ready import failing
from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.support.service import Service, running_service
from tests.support.tools import wait_until

RENEWED = 20  # s: a look of /readyz is 5 s old at most
DISC = "/mkiso.php?accession_number=SR.001"


def not_ready(service: Service) -> list[str]:
    return failing(service.get("/readyz"))


def restart_worker(service: Service) -> None:
    """Kill the only worker; another one answers."""
    master = psutil.Process(service.process.pid)
    (worker,) = (child for child in master.children() if "python" in child.name())
    worker.kill()
    wait_until(lambda: worker not in master.children() and is_answered(service), 20, service.log.read_text)


def is_answered(service: Service) -> bool:
    try:
        return service.get("/healthz").status_code == 200
    except requests.ConnectionError:
        return False


def test_a_viewer_may_be_away_at_the_start_and_later_and_come_back(site: Site, tmp_path: Path) -> None:
    viewer, share = tmp_path / "viewer", tmp_path / "share"
    share.mkdir()
    (share / "viewer.exe").write_bytes(b"MZ")
    settings = site.settings(server={"workers": 1}, media={"viewer_dir": str(viewer)})
    with running_service(tmp_path, free_ports(1)[0], settings) as service:
        assert "media.viewer_dir" in service.log.read_text()
        assert not_ready(service) == ["media.viewer_dir"]
        refused = service.get(DISC)
        assert (refused.status_code, refused.json()["code"]) == (501, "not_configured")
        assert str(viewer) in refused.json()["detail"]
        shutil.copytree(share, viewer)
        assert service.get(DISC).status_code == 200
        wait_until(lambda: not_ready(service) == [], RENEWED, service.log.read_text)
        shutil.rmtree(viewer)
        restart_worker(service)
        assert not_ready(service) == ["media.viewer_dir"]
        assert service.get("/").status_code == 200


def test_what_else_may_be_away_is_named_and_keeps_no_worker_from_starting(site: Site, tmp_path: Path) -> None:
    gone: dict[str, Any] = {name: str(tmp_path / "gone" / name) for name in ("key_file", "cert_file", "ca_file")}
    settings = site.settings(server={"workers": 1, "logo_file": str(tmp_path / "gone.png")})
    settings["receivers"] = [{**settings["receivers"][0], "tls": gone}]
    settings["pacs"]["host"] = "nowhere.invalid"
    settings["storage"]["ledger"] = f"postgresql+psycopg://nobody@127.0.0.1:{free_ports(1)[0]}/mkiso"
    settings["patients"] = {
        "source": "sql",
        "sql": {"steps": [{"url": "mysql+pymysql://nobody@nowhere.invalid/x", "query": "SELECT 'A' AS patient_name"}]},
    }
    with running_service(tmp_path, free_ports(1)[0], settings) as service:
        restart_worker(service)
        answer = service.get("/readyz")
        failed = {check["name"] for check in answer.json()["checks"] if not check["ok"]}
        receiver = settings["receivers"][0]["ae_title"]
        assert failed == {f"receiver {receiver} tls", "server.logo_file", "storage.ledger", "pacs"}
        assert answer.status_code == 503
        assert service.get("/logo").status_code == 404
        assert service.get(DISC).json()["code"] == "ledger_unavailable"


def test_a_logo_that_is_away_is_told_and_the_service_is_ready_all_the_same(site: Site, tmp_path: Path) -> None:
    settings = site.settings(server={"workers": 1, "logo_file": str(tmp_path / "gone.png")})
    with running_service(tmp_path, free_ports(1)[0], settings) as service:
        answer = service.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (200, True)
        assert [check["name"] for check in answer.json()["checks"] if not check["ok"]] == ["server.logo_file"]
        assert "server.logo_file" in service.log.read_text()


def test_the_patient_sources_certificates_may_be_away_and_come(site: Site, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    api = {"url": "https://127.0.0.1:1/{accession_number}", "ca_file": str(ca_file)}
    source = Installation(site.config(patients={"source": "api", "api": api})).patients
    with pytest.raises(PatientApiUnavailable, match=r"patients\.api\.ca_file"):
        source.name_of("A", lambda: None)
    shutil.copy(Authority(tmp_path / "pki").pair("mkiso").ca, ca_file)
    with pytest.raises(PatientApiUnavailable, match="ConnectionRefused"):
        source.name_of("A", lambda: None)
