import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mkiso import config
from mkiso.config import ALL, CHECKOUT_FILE, Config, find_file, load, parse
from mkiso.errors import BadRequest, ConfigurationError, NotConfigured

SECRET = "s3cr3t-w0rd"
PEER = {"ae_title": "ANY-SCP", "host": "172.16.0.120", "port": 104}
# The contract's section 3: every key with its default.
DEFAULTS: dict[str, Any] = {
    "pacs.ae_title": "ABPACS",
    "pacs.host": "127.0.0.1",
    "pacs.port": 11112,
    "pacs.retrieve": "move",
    "pacs.parallel_moves": 4,
    "receivers": [{"ae_title": "CDRECORD", "port": 10104, "tls": None}],
    "retrieve.calling_ae_title": "CDRECORD",
    "retrieve.connect_timeout": 10,
    "retrieve.query_timeout": 30,
    "retrieve.move_timeout": 3600,
    "retrieve.stall_timeout": 60,
    "retrieve.settle_timeout": 15,
    "retrieve.queue_timeout": 300,
    "retrieve.max_accessions": 20,
    "retrieve.verify_patient": True,
    "retrieve.unlisted": "fail",
    "destinations": {},
    "relay.queue": "asked",
    "relay.threads": 2,
    "relay.give_up": 259_200,
    "relay.confirm_timeout": 600,
    "patients.sql.steps": [],
    "media.layout": "pdi",
    "media.pictures": 48,
    "media.language": "en",
    "media.uncompressed": False,
    "media.viewer_dir": None,
    "media.volume_id": "DICOM",
    "media.institution": "",
    "media.contact": "",
    "media.max_size": None,
    "patients.source": "pacs",
    "patients.allow_mixed": False,
    "patients.sql.timeout": 5,
    "patients.api.url": None,
    "patients.api.name_field": "patient_name",
    "patients.api.headers": {},
    "patients.api.timeout": 5,
    "patients.api.ca_file": None,
    "storage.work_dir": "/var/tmp/mkiso",
    "storage.min_free": 10**9,
    "storage.ledger": "sqlite:////var/lib/mkiso/ledger.db",
    "storage.keep_history": None,
    "server.bind": "127.0.0.1:8080",
    "server.hosts": [],
    "server.workers": 2,
    "server.threads": 16,
    "server.send_timeout": 300,
    "server.drain_timeout": 20,
    "server.title": "mkiso",
    "server.logo_file": None,
    "server.helpdesk": "",
    "server.api_tokens": [],
    "server.php_page": False,
    "tools.dcmtk_dir": "/usr/bin",
    "tools.genisoimage": "/usr/bin/genisoimage",
}


def at(key: str, value: object) -> dict[str, Any]:
    """What the file holds where only this key is set."""
    data: Any = value
    for part in reversed(key.split(".")):
        data = [data] if part == "0" else {part: data}
    return data


def value_of(made: Config, key: str) -> Any:
    value: Any = made
    for part in key.split("."):
        value = getattr(value, part)
    return plain(value)


def plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: plain(one) for name, one in value}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


def leaves(model: BaseModel, path: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in model:
        here = f"{path}{name}"
        found |= leaves(value, f"{here}.") if isinstance(value, BaseModel) else {here}
    return found


def problem(data: object) -> str:
    with pytest.raises(ConfigurationError) as raised:
        parse(data)
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_key_has_the_contracts_default(key: str) -> None:
    assert value_of(parse({}), key) == DEFAULTS[key]


def test_there_is_no_key_beside_the_contracts() -> None:
    assert leaves(parse({})) == {*DEFAULTS}


@pytest.mark.parametrize(("said", "pictures"), [(0, 0), (1000, 1000), ("all", ALL)])
def test_of_a_series_some_pictures_are_shown_or_all(said: object, pictures: int) -> None:
    assert parse(at("media.pictures", said)).media.pictures == pictures
    assert "or all" in problem(at("media.pictures", "some"))


def test_a_destination_is_what_the_configuration_says() -> None:
    made = parse({"destinations": {"archive": PEER, "relay": PEER | {"tool": "dcmsend"}}})
    assert set(made.destinations) == {"relay", "archive"}
    assert [made.destination(name).tool for name in ("relay", "archive")] == ["dcmsend", "storescu"]


@pytest.mark.parametrize("missing", PEER)
def test_a_destination_has_no_default_address(missing: str) -> None:
    peer = {key: value for key, value in PEER.items() if key != missing}
    assert f"destinations.relay.{missing}" in problem({"destinations": {"relay": peer}})


@pytest.mark.parametrize("name", ["relay", "cd_publisher"])
def test_a_well_known_destination_that_is_not_there_is_not_configured(name: str) -> None:
    with pytest.raises(NotConfigured) as raised:
        parse({"destinations": {"archive": PEER}}).destination(name)
    assert (raised.value.http_status, raised.value.code) == (501, "not_configured")


def test_any_other_destination_that_is_not_there_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="archive"):
        parse({"destinations": {"archive": PEER}}).destination("nowhere")


def test_a_sql_source_has_no_default_query() -> None:
    assert "sql.steps" in problem({"patients": {"source": "sql"}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pcas", {}),
        ("pacs.aet", "X"),
        ("receivers.0.host", "h"),
        ("receivers.0.tls.password", "x"),
        ("retrieve.timeout", 1),
        ("destinations.relay.aet", "X"),
        ("media.viewer", "/v"),
        ("patients.sql.url", "sqlite://"),
        ("patients.sql.steps.0.text", "q"),
        ("storage.dir", "/d"),
        ("server.api_tokens.0.secret", "x"),
        ("tools.xorriso", "/x"),
    ],
)
def test_an_unknown_key_is_named(key: str, value: object) -> None:
    assert re.search(rf"^  {re.escape(key)}: unknown key", problem(at(key, value)), re.M)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pacs", "ABPACS"),
        ("pacs.port", "11112"),
        ("pacs.port", True),
        ("pacs.ae_title", 5),
        ("receivers", {"ae_title": "A", "port": 1}),
        ("retrieve.query_timeout", "30"),
        ("retrieve.query_timeout", None),
        ("retrieve.max_accessions", 2.5),
        ("destinations", []),
        ("destinations.relay", "172.16.0.120"),
        ("media.viewer_dir", 5),
        ("media.max_size", "much"),
        ("media.max_size", "700 apples"),
        ("patients.allow_mixed", "yes"),
        ("patients.allow_mixed", 1),
        ("patients.api.headers", []),
        ("storage.min_free", 1.5),
        ("storage.keep_history", "90"),
        ("storage.keep_history", 0.5),
        ("storage.keep_history", True),
        ("storage.ledger", 5),
        ("server.api_tokens", "token"),
    ],
)
def test_a_wrong_type_is_named(key: str, value: object) -> None:
    assert re.search(rf"^  {re.escape(key)}: expected .", problem(at(key, value)), re.M)


def test_a_name_of_the_service_is_as_browsers_send_it() -> None:
    names = ["Radiology.Hospital.example.", "10.1.2.5", "[FD00:0::5]", "pacs_2"]
    assert parse({"server": {"hosts": names}}).server.hosts == (
        "radiology.hospital.example",
        "10.1.2.5",
        "fd00::5",
        "pacs_2",
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pacs.ae_title", ""),
        ("pacs.ae_title", "A" * 17),
        ("pacs.ae_title", " A"),
        ("pacs.ae_title", "A\\B"),
        ("pacs.ae_title", "Ä"),
        ("pacs.host", ""),
        ("pacs.host", "a b"),
        ("pacs.host", "-x"),
        ("receivers", [{"ae_title": "A", "port": 104}, {"ae_title": "B", "port": 104}]),
        ("receivers", [{"ae_title": "A", "port": 104}, {"ae_title": "A", "port": 105}]),
        ("pacs.port", 0),
        ("pacs.port", 65536),
        ("receivers", []),
        ("receivers.0.tls.key_file", "mkiso.key"),
        ("receivers.0.tls.ca_file", "tls/ca.pem"),
        ("retrieve.connect_timeout", 0),
        ("retrieve.stall_timeout", -1),
        ("retrieve.settle_timeout", float("nan")),
        ("retrieve.move_timeout", float("inf")),
        ("retrieve.max_accessions", 0),
        ("destinations.relay.tool", "cp"),
        ("destinations.relay.timeout", 0),
        ("media.layout", "dvd"),
        *(("media.pictures", value) for value in (-1, 1001, "some", True, None)),
        ("media.viewer_dir", "viewer"),
        ("media.volume_id", ""),
        ("media.volume_id", "Ä" * 17),
        ("media.max_size", 0),
        ("media.max_size", -1),
        ("patients.source", "ldap"),
        ("patients.sql.timeout", 0),
        ("patients.api.url", "https://his.example/patients"),
        ("patients.api.url", "ftp://his.example/{accession_number}"),
        ("patients.api.name_field", ""),
        ("storage.work_dir", "work"),
        ("storage.keep_history", 0),
        ("storage.keep_history", 36501),
        ("server.bind", "8080"),
        ("server.bind", "127.0.0.1:65536"),
        ("server.bind", "unix:relative"),
        *(
            ("server.hosts.0", name)
            for name in ("", "https://radiology", "radiology:80", "*.example", "a b", "-x", "rö")
        ),
        ("server.workers", 0),
        ("server.threads", 7),
        ("server.send_timeout", 0),
        ("server.drain_timeout", 0),
        ("server.api_tokens.0", {"name": "his", "token": ""}),
        ("tools.dcmtk_dir", "bin"),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    assert re.search(rf"^  {re.escape(key)}(\.token)?: expected .", problem(at(key, value)), re.M)


def test_each_problem_is_told_once_in_words_of_its_own() -> None:
    told = problem({"receivers": [{"port": 0, "x": 1}], "media": {"volume_id": ""}, "destinations": {"relay": {}}})
    assert told.splitlines()[1:] == [
        "  receivers.0.port: expected greater than or equal to 1",
        "  receivers.0.x: unknown key; the commented mkiso.yaml lists the known ones",
        *(f"  destinations.relay.{key}: expected a value, and there is none" for key in ("ae_title", "host", "port")),
        "  media.volume_id: expected at least 1 character",
    ]


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("pcas", {}, "pacs"),
        ("pacs.prot", 104, "port"),
        ("receivers.0.ae_titel", "X", "ae_title"),
        ("destinations.relay.calling_aetitle", "X", "calling_ae_title"),
        ("destinations.host.tol", "X", "tool"),
        ("patients.sql.step", [], "steps"),
        ("server.api_tokens.0.tokken", "x", "token"),
        ("server.Bind", "127.0.0.1:80", "bind"),
    ],
)
def test_a_mistyped_key_is_told_what_was_meant(key: str, value: object, meant: str) -> None:
    assert f"  {key}: unknown key; did you mean {meant}?" in problem(at(key, value))


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("media.layout", "PDI", "pdi"),
        ("media.layout", "legcy", "legacy"),
        ("patients.source", "sqll", "sql"),
        ("destinations.relay.tool", "dcmsnd", "dcmsend"),
    ],
)
def test_a_mistyped_word_is_told_what_was_meant(key: str, value: object, meant: str) -> None:
    assert re.search(rf"^  {re.escape(key)}: expected .*; did you mean {meant}\?", problem(at(key, value)), re.M)


@pytest.mark.parametrize(("key", "value"), [("zzz", 1), ("media.layout", "dvd"), ("media.layout", 5)])
def test_what_is_close_to_nothing_is_not_guessed(key: str, value: object) -> None:
    assert "did you mean" not in problem(at(key, value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pacs: {}\nserver: {}\npacs: {}", "  pacs: line 3, and before in line 1; keep one"),
        ("pacs:\n  port: 1\n  host: h\n  port: 2", "  pacs.port: line 4, and before in line 2; keep one"),
        ("receivers:\n- port: 1\n  'port': 2", "  receivers.0.port: line 3, and before in line 2; keep one"),
        ("pacs: {port: 1, port: 1}", "  pacs.port: line 1, and before in line 1; keep one"),
    ],
)
def test_a_key_that_is_given_twice_is_named_with_its_lines(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mkiso.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load(file)
    assert raised.value.exit_code == 2
    assert said in str(raised.value).splitlines()


def test_a_key_may_stand_beside_what_is_merged_in(tmp_path: Path) -> None:
    file = tmp_path / "mkiso.yaml"
    file.write_text(
        "destinations:\n  relay: &relay {ae_title: A, host: h, port: 104}\n  other:\n    <<: *relay\n    port: 105\n"
    )
    assert {name: one.port for name, one in load(file).destinations.items()} == {"relay": 104, "other": 105}


@pytest.mark.parametrize("timeout", [0.5, 1])
def test_a_duration_may_be_whole_or_not(timeout: float) -> None:
    assert parse(at("retrieve.query_timeout", timeout)).retrieve.query_timeout == timeout


@pytest.mark.parametrize(
    ("size", "in_bytes"),
    [(5, 5), ("5", 5), ("700MB", 7 * 10**8), ("4.7GB", 47 * 10**8), ("1 GiB", 2**30), ("2kb", 2000)],
)
def test_a_size_is_bytes_or_has_a_unit(size: object, in_bytes: int) -> None:
    assert parse(at("media.max_size", size)).media.max_size == in_bytes


@pytest.mark.parametrize("bind", ["127.0.0.1:8080", "[::1]:8080", "his.example:80", "unix:/run/mkiso.sock"])
def test_the_service_listens_on_tcp_or_a_socket(bind: str) -> None:
    assert parse(at("server.bind", bind)).server.bind == bind


def test_the_api_as_source_needs_its_url() -> None:
    assert "url" in problem(at("patients.source", "api"))


@pytest.mark.parametrize("text", ["pacs:", "destinations:", "# nothing", ""])
def test_an_empty_section_has_its_defaults(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mkiso.yaml"
    file.write_text(text)
    assert load(file) == Config()


@pytest.mark.parametrize(
    "text",
    ["- a list", "just text", "pacs: [", "a: &a [*a]", "2024-01-01: x", "pacs: {port: 1}\n\x00", "pacs: !!python/none"],
)
def test_a_file_that_is_no_configuration_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mkiso.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError):
        load(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.yaml"):
        load(tmp_path / "absent.yaml")


SECRETS = (
    "storage.ledger",
    "patients.sql.steps.0.url",
    "patients.api.headers.Authorization",
    "server.api_tokens.0.token",
)


def with_secret(key: str, secret: object) -> dict[str, Any]:
    data = at(key, secret)
    if key.startswith("patients.sql"):
        data["patients"]["sql"]["steps"][0]["query"] = "SELECT 1"
    if key.startswith("server"):
        data["server"]["api_tokens"][0]["name"] = "his"
    return data


def secret_of(made: Config, key: str) -> str:
    found: Any = plain(made)
    for part in key.split("."):
        found = found[int(part) if part.isdigit() else part]
    return str(found)


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_may_be_in_a_file(key: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"sqlite:///{SECRET}\n")
    assert secret_of(parse(with_secret(key, f"file:{file}")), key) == f"sqlite:///{SECRET}"


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_file_that_cannot_be_read_is_named_with_its_key(key: str, tmp_path: Path) -> None:
    assert key in problem(with_secret(key, f"file:{tmp_path}/absent"))


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_is_never_shown(key: str) -> None:
    made = parse(with_secret(key, f"sqlite:///{SECRET}"))
    shown = (repr(made), str(made), made.model_dump_json(), json.dumps(made.model_dump(mode="json")))
    assert [text for text in shown if SECRET in text] == []
    assert SECRET in secret_of(made, key)


@pytest.mark.parametrize("key", SECRETS)
def test_an_error_shows_no_secret(key: str) -> None:
    assert SECRET not in problem(with_secret(key, [f"sqlite:///{SECRET}"]))
    assert SECRET not in problem(with_secret(key, f"sqlite:///{SECRET}") | {"unknown": SECRET})


@pytest.mark.parametrize(
    "line", [f"token: {SECRET}: x", f'token: "{SECRET}', f"token: {SECRET}\n\t- x", f"token: @{SECRET}"]
)
def test_an_error_of_the_files_syntax_shows_no_secret(line: str, tmp_path: Path) -> None:
    file = tmp_path / "mkiso.yaml"
    file.write_text(f"server:\n  api_tokens:\n  - name: his\n    {line}\n")
    with pytest.raises(ConfigurationError) as raised:
        load(file)
    assert SECRET not in str(raised.value)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().pacs.port = 1


@pytest.mark.parametrize(
    ("option", "variable", "installed", "found"),
    [
        ("/option", "/variable", True, "/option"),
        (None, "/variable", True, "/variable"),
        (None, None, True, "system"),
        (None, None, False, str(CHECKOUT_FILE)),
    ],
)
def test_the_file_is_the_options_else_the_environments_else_the_systems_else_the_checkouts(
    option: str | None,
    variable: str | None,
    installed: bool,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = tmp_path / "system"
    if installed:
        system.touch()
    monkeypatch.setattr(config, "SYSTEM_FILE", system)
    monkeypatch.delenv("MKISO_CONFIG", raising=False)
    if variable:
        monkeypatch.setenv("MKISO_CONFIG", variable)
    assert str(find_file(option)).endswith(found)


def test_the_reference_file_holds_exactly_the_defaults() -> None:
    assert load(CHECKOUT_FILE) == Config()


MODELS = [
    one
    for one in vars(config).values()
    if isinstance(one, type) and issubclass(one, config.Section) and one.model_fields
]


@pytest.mark.parametrize("model", MODELS)
def test_the_reference_file_documents_every_key(model: type[BaseModel]) -> None:
    text = CHECKOUT_FILE.read_text()
    keys = {name for name in model.model_fields if re.search(rf"(^\s*(# *|- )*|[{{,] *){name}:", text, re.M)}
    assert set(model.model_fields) - keys == set()
