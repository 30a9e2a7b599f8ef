"""mkiso: DICOM discs from a PACS, complete, proven and streamed."""
