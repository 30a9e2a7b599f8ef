"""The configuration: one YAML file to frozen models, and what is wrong with one, a line a key.

Each model is a section of `etc/mkiso.yaml`, which documents every key. Durations are seconds, sizes bytes. An error
never shows a value, which may be a secret. This is the only import of yaml.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from mkiso.errors import BadRequest, ConfigurationError, NotConfigured
from mkiso.values import AbsolutePath, AETitle, Bind, Host, Port, Seconds, Secret, ServedName, Size, VolumeId

SYSTEM_FILE = Path("/etc/mkiso/mkiso.yaml")
CHECKOUT_FILE = Path(__file__).parent.parent / "etc" / "mkiso.yaml"
WELL_KNOWN = ("relay", "cd_publisher")  # destinations that have URLs of their own
MOST_PICTURES, ALL = 1000, 1 << 30  # of a series
PYDANTICS_WORDS = re.compile(r"Value error, |\w+ should (be|have) ")  # before what was expected


LayoutName = Literal["legacy", "pdi"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Pacs(Section):
    ae_title: AETitle = "ABPACS"
    host: Host = "127.0.0.1"
    port: Port = 11112
    retrieve: Literal["move", "get"] = "move"
    parallel_moves: Annotated[int, Field(ge=1, le=16)] = 4


class Tls(Section):
    key_file: AbsolutePath
    cert_file: AbsolutePath
    ca_file: AbsolutePath


class Receiver(Section):
    ae_title: AETitle = "CDRECORD"
    port: Port = 10104
    tls: Tls | None = None


def _distinct(receivers: tuple[Receiver, ...]) -> tuple[Receiver, ...]:
    """The PACS sends to the one port that it knows for an AE title."""
    if len({receiver.port for receiver in receivers}) < len(receivers):
        raise ValueError("each on a port of its own")
    if len({receiver.ae_title for receiver in receivers}) < len(receivers):
        raise ValueError("each with an AE title of its own")
    return receivers


Receivers = Annotated[tuple[Receiver, ...], Field(min_length=1), AfterValidator(_distinct)]


class Retrieve(Section):
    calling_ae_title: AETitle = "CDRECORD"
    connect_timeout: Seconds = 10
    query_timeout: Seconds = 30
    move_timeout: Seconds = 3600
    stall_timeout: Seconds = 60
    settle_timeout: Seconds = 15
    queue_timeout: Seconds = 300
    max_accessions: Annotated[int, Field(ge=1, le=1000)] = 20
    verify_patient: bool = True
    unlisted: Literal["fail", "leave_out"] = "fail"


class Destination(Section):
    ae_title: AETitle
    host: Host
    port: Port
    calling_ae_title: AETitle | None = None
    tool: Literal["storescu", "dcmsend"] = "storescu"
    timeout: Seconds = 60
    title: Annotated[str, Field(max_length=100)] = ""
    parallel: Annotated[int, Field(ge=1, le=64)] = 2
    confirm: Literal["none", "find", "commit"] = "none"
    query_ae_title: AETitle | None = None
    query_host: Host | None = None
    query_port: Port | None = None
    commit_port: Port | None = None


class Queue(Section):
    queue: Literal["asked", "always"] = "asked"
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    give_up: Seconds = 259_200
    confirm_timeout: Seconds = 600


def _pictures(value: object) -> object:
    """How many, from `all` or a number."""
    if value == "all":
        return ALL
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_PICTURES:
        return value
    raise ValueError(f"a number from 0 to {MOST_PICTURES}, or all")


class Media(Section):
    layout: LayoutName = "pdi"
    pictures: Annotated[int, BeforeValidator(_pictures)] = 48
    language: Literal["en", "id"] = "en"
    uncompressed: bool = False
    viewer_dir: AbsolutePath | None = None
    volume_id: VolumeId = "DICOM"
    institution: str = ""
    contact: str = ""
    max_size: Annotated[Size, Field(ge=1)] | None = None


class SqlStep(Section):
    url: Secret
    query: Annotated[str, Field(min_length=1)]


class Sql(Section):
    timeout: Seconds = 5
    steps: tuple[SqlStep, ...] = ()


class Api(Section):
    url: Annotated[str, Field(pattern=r"^https?://.*\{accession_number\}")] | None = None
    name_field: Annotated[str, Field(min_length=1)] = "patient_name"
    headers: dict[str, Secret] = {}
    timeout: Seconds = 5
    ca_file: AbsolutePath | None = None


class Patients(Section):
    source: Literal["pacs", "sql", "api"] = "pacs"
    allow_mixed: bool = False
    sql: Sql = Sql()
    api: Api = Api()

    @model_validator(mode="after")
    def _source_is_given(self) -> Self:
        if self.source == "api" and self.api.url is None:
            raise ValueError("api.url, with {accession_number} in it, where the source is api")
        if self.source == "sql" and not self.sql.steps:
            raise ValueError("sql.steps, at least one {url, query}, where the source is sql")
        return self


class Storage(Section):
    work_dir: AbsolutePath = Path("/var/tmp/mkiso")  # noqa: S108  (the contract's default; mode 0700 inside)
    min_free: Size = 10**9
    ledger: Secret = SecretStr("sqlite:////var/lib/mkiso/ledger.db")
    keep_history: Annotated[int, Field(ge=1, le=36500)] | None = None


class ApiToken(Section):
    name: Annotated[str, Field(min_length=1)]
    token: Annotated[Secret, Field(min_length=1)]


class Server(Section):
    bind: Bind = "127.0.0.1:8080"
    hosts: tuple[ServedName, ...] = ()
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    threads: Annotated[int, Field(ge=8, le=1024)] = 16
    send_timeout: Seconds = 300
    drain_timeout: Seconds = 20
    title: Annotated[str, Field(min_length=1, max_length=100)] = "mkiso"
    logo_file: AbsolutePath | None = None
    helpdesk: Annotated[str, Field(max_length=1000)] = ""
    api_tokens: tuple[ApiToken, ...] = ()
    php_page: bool = False


class Tools(Section):
    dcmtk_dir: AbsolutePath = Path("/usr/bin")
    genisoimage: AbsolutePath = Path("/usr/bin/genisoimage")


class Config(Section):
    pacs: Pacs = Pacs()
    receivers: Receivers = (Receiver(),)
    retrieve: Retrieve = Retrieve()
    destinations: dict[str, Destination] = {}
    relay: Queue = Queue()
    media: Media = Media()
    patients: Patients = Patients()
    storage: Storage = Storage()
    server: Server = Server()
    tools: Tools = Tools()

    @property
    def move_destinations(self) -> tuple[Receiver, ...]:
        """The receivers that the archive sends to: none where everything comes by C-GET."""
        return self.receivers if self.pacs.retrieve == "move" else ()

    def destination(self, name: str) -> Destination:
        """The named C-STORE peer.

        Raises NotConfigured for one that has URLs of its own and is not there, BadRequest for any other.
        """
        if name in self.destinations:
            return self.destinations[name]
        if name in WELL_KNOWN:
            raise NotConfigured(f"The configuration has no destinations.{name}. The commented mkiso.yaml shows how.")
        known = ", ".join(sorted(self.destinations)) or "none"
        raise BadRequest(f"There is no destination of that name; there are: {known}.")


def find_file(option: str | None) -> Path:
    """The file to read: `--config`, else MKISO_CONFIG, else the system's, else the checkout's."""
    if named := option or os.environ.get("MKISO_CONFIG"):
        return Path(named)
    return SYSTEM_FILE if SYSTEM_FILE.exists() else CHECKOUT_FILE


def load(path: Path) -> Config:
    """Read and check a configuration file; ConfigurationError names each key that is wrong."""
    data = _read_yaml(path)
    return parse({} if data is None else data, str(path))


def parse(data: object, source: str = "configuration") -> Config:
    """Check what a file held. A section that is left empty has its defaults."""
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if value is not None}
    try:
        text = json.dumps(data, default=str)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{source} has a key that is no text, or holds itself. The commented mkiso.yaml shows how."
        ) from None
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        raise ConfigurationError(f"{source} has wrong settings:\n{_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    """Each key's path and what was expected there, and what a mistyped key or word was probably meant to be."""
    errors = error.errors(include_url=False)
    return "\n".join(_problem(one) for one in errors if not _is_echo(one, errors))


def _is_echo(error: Any, errors: Iterable[Any]) -> bool:
    """Whether a list is too short only because what is wrong within it was taken out."""
    within = (one["loc"][: len(error["loc"])] == error["loc"] for one in errors if one is not error)
    return error["type"] == "too_short" and any(within)


def _problem(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        *above, key = error["loc"]
        meant = _meant(key, _section_at(above).model_fields)
        return f"  {path}: unknown key{meant}; the commented mkiso.yaml lists the known ones"
    meant = ""
    if error["type"] == "literal_error":
        meant = _meant(error["input"], re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    expected = "a value, and there is none" if error["type"] == "missing" else PYDANTICS_WORDS.sub("", error["msg"])
    return f"  {path}: expected {expected}{meant}"


def _meant(given: object, known: Collection[str]) -> str:
    close = get_close_matches(str(given).lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _section_at(path: Iterable[object]) -> type[BaseModel]:
    """The model of a path's section; the numbers of a list and the names in a mapping lead no further."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _section_in(model.model_fields[part].annotation) or model
    return model


def _section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _read_yaml(path: Path) -> object:
    """What the file holds, None where that is nothing; ConfigurationError, which names each key that is given twice.

    Of two values YAML's own reader silently takes the last.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if twice := list(_repeated(root, (), set())):
            raise ConfigurationError(f"{path} has keys more than once:\n" + "\n".join(twice))
        return None if root is None else loader.construct_document(root)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML{_place(error)}.") from None


def _repeated(node: yaml.Node | None, path: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    """A line for each key that a mapping has twice; a node that several aliases name is looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield from _repeated_in(node, path)
        for key, value in node.value:
            yield from _repeated(value, (*path, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _repeated(value, (*path, str(number)), seen)


def _repeated_in(mapping: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[str]:
    lines: dict[str, int] = {}
    for key in (key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)):
        line = key.start_mark.line + 1
        if key.value in lines:
            yield f"  {'.'.join((*path, key.value))}: line {line}, and before in line {lines[key.value]}; keep one"
        lines.setdefault(key.value, line)


def _place(error: yaml.YAMLError) -> str:
    """Where the mistake is; not the line itself, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
