"""SQLAlchemy, or one line that says how to install it."""

try:
    import alembic  # noqa: F401
    import sqlalchemy as sa
except ImportError as error:
    package = str(error.name).partition(".")[0]
    raise ValueError(f"a store needs {package}: pip install 'codots[agent]'") from error

__all__ = ["reason", "sa"]


def reason(error: sa.exc.SQLAlchemyError) -> str:
    """Describe a failure of the database in one line, without what is stored."""
    words = str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__]
    return f"the store cannot be used: {words[0]}"
