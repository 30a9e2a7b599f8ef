"""dcm2pdf: the PDF in an instance. It takes out whatever lies there, so that its beginning is looked at."""

from __future__ import annotations

from pathlib import Path

from mkiso.dcmtk.conversion import Converter

SIGNATURE, WITHIN = b"%PDF-", 1024  # as readers look for it (ISO 32000-1, Adobe's note 13 on its Annex H)


def document_argv(dcmtk_dir: Path, instance: Path, document: Path) -> tuple[str, ...]:
    return (str(dcmtk_dir / "dcm2pdf"), "-q", str(instance), str(document))


def make_document(converter: Converter, instance: Path, document: Path) -> bool:
    """Write the document; whether it is a PDF. Raises what `Converter.run` raises."""
    if not converter.makes(document_argv(converter.dcmtk_dir, instance, document), document):
        return False
    with document.open("rb") as file:
        return SIGNATURE in file.read(WITHIN)
