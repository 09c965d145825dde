"""The store: SQLAlchemy models, migrations, commands (they write), queries (they read) and pandas frames.

Commands and queries take a session; the caller owns its transaction.
"""
