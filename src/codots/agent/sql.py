"""SQLAlchemy, or one line that says how to install it."""

try:
    import alembic  # noqa: F401
    import sqlalchemy as sa
except ImportError as error:
    package = str(error.name).partition(".")[0]
    raise ValueError(f"a store needs {package}: pip install 'codots[agent]'") from error

__all__ = ["sa"]
