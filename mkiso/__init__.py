"""mkiso: DICOM discs from a PACS, complete, proven and streamed."""

__version__ = "0.1.0"
