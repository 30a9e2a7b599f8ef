"""The first schema."""

import sqlalchemy as sa

from mkiso.ledger.migrations.steps import add_index, make_table

revision, down_revision = "1.1", None


def upgrade() -> None:
    _jobs()
    make_table(
        "job_accessions",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("accession_number", sa.String(64), primary_key=True),
    )
    make_table(
        "instances",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("series_uid", sa.String(64), nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("transfer_syntax", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    add_index("ix_jobs_state", "jobs", "state")
    add_index("ix_jobs_created_at", "jobs", "created_at")
    add_index("ix_job_accessions_accession_number", "job_accessions", "accession_number")
    add_index("ix_instances_study_uid", "instances", "study_uid")


def _jobs() -> None:
    make_table(
        "jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("accessions", sa.JSON, nullable=False),
        sa.Column("patient_id", sa.Text),
        sa.Column("patient_name", sa.Text),
        sa.Column("studies", sa.JSON, nullable=False),
        sa.Column("layout", sa.String(8)),
        sa.Column("destination", sa.Text),
        sa.Column("expected", sa.Integer),
        sa.Column("received", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("files_sent", sa.Integer, nullable=False),
        sa.Column("files_failed", sa.Integer, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("requester", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("finished_at", sa.String(27)),
        sa.Column("seconds", sa.JSON, nullable=False),
        sa.Column("work_dir", sa.Text, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
    )
