"""What can be a JSON document: `to_dict`, `to_json`, and what pydantic asks of a type. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["Document"]


class Document(msgspec.Struct, frozen=True):
    """A frozen struct that is a JSON document as well.

    The names in it are the Engine API's ("RepoTags") for what an Engine or a registry answers, and those of the
    attributes for what this library says. Times are texts as in RFC 3339. msgspec, and so Litestar, makes the same
    document of it; pydantic, and so FastAPI, takes its type as that of a field or of a response.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the document as what `json.dumps` takes."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document

    def to_json(self) -> bytes:
        """Return the document as JSON in UTF-8."""
        return msgspec.json.encode(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic how this type is read and written."""
        from pydantic_core import core_schema  # noqa: PLC0415 - whoever asks has it

        def read(value: object) -> Document:
            try:
                return value if isinstance(value, cls) else msgspec.convert(value, cls)
            except msgspec.ValidationError as error:
                raise ValueError(str(error)) from error

        return core_schema.no_info_plain_validator_function(
            read,
            ref=f"{cls.__module__}.{cls.__qualname__}",
            serialization=core_schema.plain_serializer_function_ser_schema(msgspec.to_builtins),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Tell pydantic the document's JSON schema, and so FastAPI the API's documentation."""
        (described,), components = msgspec.json.schema_components((cls,))
        return cast("JsonSchemaValue", _inlined(described, components))


def _inlined(schema: object, components: Mapping[str, object]) -> object:
    """Put what a schema refers to in the place of the reference: pydantic keeps definitions of its own alone."""
    if isinstance(schema, dict):
        parts = cast("dict[str, object]", schema)
        if reference := parts.get("$ref"):
            return _inlined(components[str(reference).rpartition("/")[2]], components)
        return {name: _inlined(value, components) for name, value in parts.items()}
    if isinstance(schema, list):
        return [_inlined(each, components) for each in cast("list[object]", schema)]
    return schema
