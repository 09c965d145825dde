"""The store: SQLAlchemy models, migrations, commands (they write), queries (they read) and pandas frames.

Nothing here opens or ends a transaction by itself: the caller passes a session and owns its transaction.
"""
