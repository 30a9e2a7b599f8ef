"""mkiso: DICOM discs from a PACS, complete, proven and streamed."""

__version__ = "0.2.0"
