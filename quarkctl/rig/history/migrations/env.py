"""Run by Alembic; the connection is given by `quarkctl.rig.history.database`."""

from __future__ import annotations

from alembic import context

from quarkctl.rig.history import tables

context.configure(
    connection=context.config.attributes["connection"], target_metadata=tables.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
