"""The first schema, from which ledgers are migrated: nothing older is read, and new ledgers are made without this."""

revision, down_revision = "1.8", None


def upgrade() -> None:
    """A ledger of this version is as it is to be."""
